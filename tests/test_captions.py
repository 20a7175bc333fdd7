"""Every sentence the templates can make: right English, true of the boxes, the same for any subset."""
import json
import re
from collections import Counter
from dataclasses import replace
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sarclip.captions.templates import (CAPTION_PROFILES, REGIONS, TEMPLATES, admissible_facts, caption_record, claims, class_prompts, counted, facts_json,
                              plural, render, template_ids)
from sarclip.data.manifest import load_manifest
from sarclip.captions.proofread import Harper, proofread, stated
from sarclip.core.records import Box, Record

CLASSES = tuple(dict.fromkeys(name for dataset in load_manifest().datasets.values() for name in dataset.classes.values()))
UNITS = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen".split()
TENS = "_ _ twenty thirty forty fifty sixty seventy eighty ninety".split()

name, number = st.sampled_from(CLASSES), st.integers(1, 300)
here = st.dictionaries(name, number, min_size=1, max_size=5)
quick = settings(max_examples=200, deadline=None)


def spelt(n: int) -> str:
    "A number in words up to a hundred, in figures above, by the schoolbook."
    if n > 100: return str(n)
    if n == 100: return "one hundred"
    return UNITS[n] if n < 20 else TENS[n // 10] + (f"-{UNITS[n % 10]}" if n % 10 else "")


def well_formed(text: str) -> None:
    words = re.findall(r"[\w'-]+", text.lower())
    assert text[0].isupper() or text[0].isdigit(), text
    assert text.endswith(".") and text.count(".") == 1 and "  " not in text and " ," not in text and "{" not in text, text
    assert not any(a == b for a, b in zip(words, words[1:])), text
    assert not re.search(r"\ba [aeio]", text, re.IGNORECASE) or re.search(r"\ba one-", text), text    # u may sound like you
    assert not re.search(r"\ban [bcdgjkpqtvwyz](?![A-Z])[a-z]", text), text


def subject_is_one(facts: tuple) -> bool: return (facts[0][2] if facts[0][0] != "is" else 1) == 1 and (len(facts) == 1 or facts[0][0] == "rel")


def agrees(template: str, facts: tuple, text: str) -> None:
    "Where the template has a verb of its own, its number is its subject's."
    pattern = CAPTION_PROFILES["extended"][template]
    one, several = (r"\bis\b(?! how)", r"\bappears\b"), (r"\bare\b", r"\bappear\b")
    for slot, singular, multiple in zip(("{is_}", "{appears}"), one, several):
        if slot in pattern:
            rest = re.sub("This is|What this", "", text)
            assert bool(re.search(singular, rest)) == subject_is_one(facts) and bool(re.search(multiple, rest)) != subject_is_one(facts), text


def every(kind: str) -> list[str]: return list(template_ids("extended")[kind])


@quick
@given(name, number)
def test_a_counted_class(name, n):
    text = counted(name, n)
    if n == 1: assert re.fullmatch(rf"an? {re.escape(name)}", text)
    else: assert text == f"{spelt(n)} {plural(name)}"
    assert counted(name, "many") == f"many {plural(name)}"


def test_a_plural_differs_unless_the_word_has_none():
    for name in CLASSES:
        bare = name.split(" of ")[0].split(" out ")[0]
        assert (plural(name) == name) == bare.endswith(("craft", "sheep", "crossroads")), plural(name)
        assert not plural(bare).endswith("ss"), plural(name)
        assert plural(name).count(" ") == name.count(" ")


@quick
@given(here, st.sampled_from(every("simple") + every("complex")))
def test_general_captions_state_the_counts(counts, template):
    facts = tuple(sorted(("count", *item) for item in counts.items()))
    text = render(template, facts)
    well_formed(text)
    agrees(template, facts, text)
    assert stated(text, CLASSES) == tuple(f"{n} {name}" for _, name, n in facts)


@quick
@given(here, st.sampled_from(REGIONS), st.sampled_from(every("absolute")))
def test_absolute_captions_state_counts_and_region(counts, region, template):
    facts = tuple(sorted(("at", *item, region) for item in counts.items()))
    text = render(template, facts)
    well_formed(text)
    agrees(template, facts, text)
    found = stated(text, CLASSES)
    assert Counter(found) == Counter([f"{n} {name}" for _, name, n, _ in facts] + region.split())


@quick
@given(name, number, st.sampled_from(REGIONS), st.sampled_from(["above", "below", "left", "right"]),
       name, number, st.sampled_from(REGIONS), st.sampled_from(every("relative")))
def test_relative_captions_state_both_groups_in_order(first, n, region, way, second, m, region2, template):
    facts = (("rel", first, n, region, way, second, m, region2),)
    text = render(template, facts)
    well_formed(text)
    agrees(template, facts, text)
    for group, size in ((first, n), (second, m)): assert f"the {group if size == 1 else counted(group, size)} ".lower() in text.lower()
    places = [word for word in stated(text, CLASSES) if " " not in word]
    assert places[:len(region.split())] == region.split() and way in places and Counter(places) == Counter([*region.split(), way, *region2.split()])


@quick
@given(name, st.one_of(st.integers(1, 10), st.just("many")), st.sampled_from(every("b2c_count") + every("b2c_center") + every("b2c_around")))
def test_box_to_caption(name, n, template):
    facts = (("has", name, n),)
    text = render(template, facts, "optical")
    well_formed(text)
    agrees(template, facts, text)
    assert f"{n} {name}" in stated(text, CLASSES)


def test_ten_ways_to_name_a_class():
    for name in CLASSES:
        prompts = class_prompts(name)
        assert len(set(prompts)) == 10
        for text in prompts:
            well_formed(text)
            assert f"the {name}" in text.replace("The", "the")


def test_the_paper_profile_has_ten_classification_templates():
    ids = template_ids("paper")
    assert len(ids["simple"]) == len(ids["complex"]) == 5 and template_ids() == ids
    chip = Record("d", "d/1", "1", labels=("x",))
    ten = caption_record(chip, {"x": "ship"}, 0, n=99)
    assert {c.template for c in ten} == {*ids["simple"], *ids["complex"]} and len({c.text for c in ten}) == 10
    more = {c.template for c in caption_record(chip, {"x": "ship"}, 0, n=99, profile="extended")}
    assert len(more) == 20 and more > {c.template for c in ten}
    with pytest.raises(ValueError, match="'papers' is unknown"): caption_record(chip, {"x": "ship"}, 0, profile="papers")


def test_harper_finds_nothing_in_our_sentences():
    facts = [(("count", name, 1 + k % 3),) for k, name in enumerate(CLASSES)]
    texts = [render(template, f) for k, f in enumerate(facts) for template in (every("simple") + every("complex"))[k % 5::5]]
    checked = proofread(texts, CLASSES, Harper(CLASSES))
    assert not (checked.reason != "").any(), checked[checked.reason != ""].to_string()


# Scenes

@cache
def names() -> dict[str, str]: return {f"raw{k}": readable for k, readable in enumerate(CLASSES[:30])}


@st.composite
def scenes(draw: st.DrawFn) -> Record:
    width, height = draw(st.integers(16, 400)), draw(st.integers(16, 400))
    labels = draw(st.lists(st.sampled_from(sorted(names())), min_size=1, max_size=4, unique=True))
    boxes = []
    for _ in range(draw(st.integers(1, 14))):
        x0, y0 = draw(st.integers(0, width - 2)), draw(st.integers(0, height - 2))
        boxes.append(Box(draw(st.sampled_from(labels)), x0, y0, draw(st.integers(x0 + 1, width)), draw(st.integers(y0 + 1, height))))
    return Record("d", f"d/{draw(st.integers(0, 10**6))}.png", "x.png", size=(width, height), task="det", boxes=tuple(boxes))


def region_of(box: Box, width: int, height: int) -> str:
    "The greatest IoU with five regions of half width and height, taken literally; a tie goes to the nearest centre."
    def score(region: str) -> tuple[float, float]:
        x, y = {"upper left": (.25, .25), "upper right": (.75, .25), "bottom left": (.25, .75), "bottom right": (.75, .75), "center": (.5, .5)}[region]
        across = min(box.x1, (x + .25) * width) - max(box.x0, (x - .25) * width)
        down = min(box.y1, (y + .25) * height) - max(box.y0, (y - .25) * height)
        shared = max(across, 0) * max(down, 0)
        near = -((box.x0 + box.x1) / 2 - x * width)**2 - ((box.y0 + box.y1) / 2 - y * height)**2
        return round(shared / (width * height / 4 + (box.x1 - box.x0) * (box.y1 - box.y0) - shared), 12), near
    return max(REGIONS, key=score)


@quick
@given(scenes(), st.integers(0, 5), st.sampled_from(sorted(CAPTION_PROFILES)))
def test_captions_of_a_scene_are_true_different_and_repeatable(scene, seed, profile):
    captions = caption_record(scene, names(), seed, profile=profile)
    assert len(captions) == len({c.text for c in captions}) == 5
    assert {c.facts for c in captions} <= admissible_facts(scene, names())
    assert captions == caption_record(replace(scene, boxes=scene.boxes[::-1]), names(), seed, profile=profile)
    assert caption_record(scene, names(), seed, n=3, profile=profile) == captions[:3]
    groups = Counter((names()[b.label], region_of(b, *scene.size)) for b in scene.boxes)
    for c in captions:
        assert c.template.startswith(c.family) and facts_json(tuple(map(tuple, json.loads(c.facts)))) == c.facts
        for fact in json.loads(c.facts):
            if fact[0] == "count": assert fact[2] == sum(n for (name, _), n in groups.items() if name == fact[1])
            if fact[0] == "at": assert groups[fact[1], fact[3]] == fact[2]
            if fact[0] == "rel": check_relation(scene, groups, fact)
    at = [f for c in captions if c.family == "absolute" for f in [json.loads(c.facts)]]
    assert all(len(f) == len([1 for (_, region) in groups if region == f[0][3]]) for f in at)    # every class of that region is named


def check_relation(scene: Record, groups: Counter, fact: list) -> None:
    _, a, n, region, way, b, m, region2 = fact
    assert groups[a, region] == n and groups[b, region2] == m
    centres = lambda name, place: [((q.x0 + q.x1) / 2, (q.y0 + q.y1) / 2) for q in scene.boxes if names()[q.label] == name and region_of(q, *scene.size) == place]
    axis, sign = {"left": (0, -1), "right": (0, 1), "above": (1, -1), "below": (1, 1)}[way]
    assert all(sign * (p[axis] - q[axis]) > 0 for p in centres(a, region) for q in centres(b, region2))
    contradiction = {"left": ("right", "left"), "right": ("left", "right"), "above": ("bottom", "upper"), "below": ("upper", "bottom")}[way]
    assert not (contradiction[0] in region and contradiction[1] in region2)
    assert {"left": "left", "right": "right", "above": "upper", "below": "bottom"}[way] not in region2 or region2 == region \
        or {"left": "left", "right": "right", "above": "upper", "below": "bottom"}[way] in region    # nothing in the center is left of what is in the left


@quick
@given(scenes(), st.integers(0, 5))
def test_box_to_caption_of_a_scene(scene, seed):
    captions = caption_record(scene, names(), seed, modality="optical")
    center = Counter(names()[b.label] for b in scene.boxes if region_of(b, *scene.size) == "center")
    around = Counter(names()[b.label] for b in scene.boxes) - center
    many = lambda n: "many" if n > 10 else n
    expect = [facts_json(tuple((kind, name, many(n)) for name, n in counts.items())) for kind, counts in (("center", center), ("around", around)) if counts]
    assert len(captions) == len({c.text for c in captions}) == 5 and {c.family for c in captions} == {"b2c"}
    assert [c.facts for c in captions if "count" not in c.template] == expect
    for c in captions[len(expect):]:
        ((kind, name, n),) = json.loads(c.facts)
        assert kind == "has" and n == many((center + around)[name])


def test_captions_depend_on_image_and_seed_alone():
    records = [Record("d", f"d/{k}", f"{k}", labels=("raw0",)) for k in range(400)]
    whole = {r.image_id: caption_record(r, names(), 7) for r in records}
    assert all(caption_record(r, names(), 7) == whole[r.image_id] for r in records[::-7])
    used = Counter(c.template for captions in whole.values() for c in captions)
    assert len(used) == 10 and min(used.values()) > 120    # 200 each on average
    pairs = Counter(frozenset(c.template for c in captions if c.family == "simple") for captions in whole.values())
    assert len(pairs) >= 15    # of 10 pairs and 10 triples of five
    assert sum(caption_record(r, names(), 8) != whole[r.image_id] for r in records) > 390


def test_the_same_text_never_means_two_things():
    meaning = {}
    for k, name in enumerate(CLASSES):
        for n in (1, 2, 3):
            for region in REGIONS:
                for template in every("absolute"):
                    text = render(template, (("at", name, n, region),))
                    assert meaning.setdefault(text, (name, n, region)) == (name, n, region), text
    assert len(set(TEMPLATES.values())) == len(TEMPLATES)


def test_no_boxes_in_a_detection_image_and_several_labels():
    assert claims(Record("d", "d/1", "1", task="det", size=(9, 9)), {}, "optical") == {}
    two = caption_record(Record("d", "d/1", "1", labels=("raw0", "raw1")), names(), 0, n=99)
    assert len({c.text for c in two}) == 10 and {c.facts for c in two} == {facts_json((("is", names()["raw0"]), ("is", names()["raw1"])))}
    for c in two: agrees(c.template, (("is", "x"), ("is", "y")), c.text)
