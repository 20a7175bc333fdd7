#!/usr/bin/env bash
# Makes regl-scatterplot.iife.js and LICENSES.txt anew: the published packages, bundled, unchanged. Needs node and npm.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
npm init -y >/dev/null
npm install --silent --no-audit --no-fund --ignore-scripts regl-scatterplot@1.16.0 regl@2.1.1 pub-sub-es@3.0.0 kdbush@4.0.2 esbuild@0.28.2
cat > entry.js <<'JS'
import createScatterplot from "regl-scatterplot";
globalThis.createScatterplot = createScatterplot;
JS
node_modules/.bin/esbuild entry.js --bundle --minify --format=iife --legal-comments=none --outfile="$here/regl-scatterplot.iife.js"
{
  echo "regl-scatterplot.iife.js holds these packages, unchanged but for bundling (build.sh); kdbush is copied into regl-scatterplot by its author."
  for package in regl-scatterplot regl regl-line dom-2d-camera camera-2d-simple earcut gl-matrix pub-sub-es @flekschas/utils kdbush; do
    printf '\n==== %s %s ====\n\n' "$package" "$(node -p "require('./node_modules/$package/package.json').version")"
    cat node_modules/"$package"/LICENSE*
  done
} > "$here/LICENSES.txt"
