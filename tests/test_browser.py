"""Pages in a real browser, from disk, with the network cut."""
from pathlib import Path

from browser import Browser


def test_browser_keeps_what_goes_wrong(browser: Browser, tmp_path: Path) -> None:
    "The fixture itself: an error of the page, a request and the size and colours asked for are seen."
    page = tmp_path / "page.html"
    page.write_text("<meta name=viewport content='width=device-width'><img src='https://example.org/a.png'>"
                    "<p style='color:#888;background:#eee'>pale</p><p>clear</p><p hidden style='color:#fff;background:#fff'>unseen</p>"
                    "<script>document.title = innerWidth + ' ' + matchMedia('(prefers-color-scheme: dark)').matches;"
                    "null.x</script>")
    browser.open(page, width=390, dark=True)
    assert browser.run("return document.title") == "390 true"
    assert any("null" in message for message in browser.errors())
    assert [text.split(": ")[1] for text in browser.faint()] == ["pale"]
    assert browser.requests() == ["https://example.org/a.png"]
    browser.open(page, width=1280)
    assert browser.run("return document.title") == "1280 false"
    assert browser.run("return !!document.createElement('canvas').getContext('webgl')"), "pages draw with WebGL"
