import json
from base64 import b64encode
from pathlib import Path

import pytest

from lightssl.errors import LightSSLError
from lightssl.reports.page import write_report
from tests.reports.html import Page


def page_of(run: Path) -> Page:
    return Page(write_report(run))


def test_the_page_loads_nothing(full_run):
    page = page_of(full_run)
    assert page.loads
    assert all(address.startswith(("data:", "#")) for address in page.loads)
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    source = (full_run / "report.html").read_text(encoding="utf-8")
    assert "@import" not in source
    assert source.count("url(") == source.count("url(#")


def test_the_picture_of_the_operators_is_embedded(full_run):
    picture = b64encode((full_run / "bench" / "cpu.operators.png").read_bytes()).decode()
    assert page_of(full_run).loads.count(f"data:image/png;base64,{picture}") == 1


def test_hostile_names_stay_text(full_run):
    page = page_of(full_run)
    assert page.events == []
    assert "b" not in page.tags
    assert "<script>alert('&')</script>" in page.text
    assert "<b>Bag</b>" in page.text


def test_ids_are_unique_though_there_are_many_drawings(full_run):
    page = page_of(full_run)
    assert page.tags.count("svg") == 2  # loss and the unknown quantity; weight decay never changed
    assert len(page.ids) == len(set(page.ids))


def test_the_verdict_compares_with_the_better_random_network(full_run):
    sentence = "kNN 61.2 % after pre-training, 58.4 % for the same network at random initialisation: +2.8 points."
    assert f"{sentence} Linear probe" in page_of(full_run).text


def test_a_loss_is_said_plainly(full_run):
    assert "\N{MINUS SIGN}10.0 points. Pre-training made the features worse." in page_of(full_run).text


def test_stages_and_convergence_are_shown_and_leave_the_verdict_alone(full_run):
    before = page_of(full_run)
    path = full_run / "evaluate" / "knn.json"
    knn = json.loads(path.read_text(encoding="utf-8"))
    knn["results"][0]["curve"] = [{"epoch": epoch, "top1": 50.0 + epoch} for epoch in range(5)]
    knn["results"].append({"network": "random, batch norm estimated", "stage": "stage 1 of 4", "top1": 99.0})
    path.write_text(json.dumps(knn), encoding="utf-8")
    after = page_of(full_run)
    assert "random, batch norm estimated, stage 1 of 4" in after.text
    assert after.tags.count("svg") == before.tags.count("svg") + 1
    assert "58.4 % for the same network at random initialisation: +2.8 points." in after.text


def test_a_difference_that_may_be_chance_is_not_called_one(full_run):
    path = full_run / "evaluate" / "knn.json"
    knn = json.loads(path.read_text(encoding="utf-8"))
    knn["results"][0] |= {"top1": 59.0, "test_images": 1000}
    path.write_text(json.dumps(knn), encoding="utf-8")
    # Two standard errors: 2 * sqrt((59 * 41 + 58.4 * 41.6) / 1000).
    assert "+0.6 points. No clear difference: with 1,000 test images, less than 4.4 points" in page_of(full_run).text


def test_everything_in_the_folder_is_shown(full_run):
    text = page_of(full_run).text
    for words in (
        "tiny_dino, scale quick",
        "started 2026-01-02 03:04 UTC",
        "400 steps, 39.9 epochs; the same throughout: weight decay 1e-06",
        "temperature of tea",
        "2 global views of 32 px",
        "seed 5",
        "2.5 MB. precision fp32, opset 18, largest error 1.5e-06, accuracy % 44.5",
        "cpu: A Processor",
        "12.35",
        "1 image could not be used",
        "truncated",
        "linear top1 68.3",
        "lightssl pretrain --recipe tiny_dino --scale small --data YOUR_IMAGES",
    ):
        assert words in text
    assert "Make it with" not in text


def test_what_is_missing_is_named_with_the_command_that_makes_it(bare_run):
    text = page_of(bare_run).text
    folder = f"'{bare_run}'"  # it has a space: the command can be pasted
    for command in (
        f"lightssl evaluate {folder} --task knn",
        f"lightssl evaluate {folder} --task linear",
        f"lightssl export {folder} --onnx",
        f"lightssl bench '{bare_run / 'export' / 'model.onnx'}' --target cpu",
        f"lightssl pretrain --resume {folder}",
    ):
        assert command in text
    assert "has not been measured yet" in text


def test_the_distributions_of_views_are_shown_if_they_are_a_picture(full_run):
    picture = b"\x89PNG\r\n\x1a\nand so on"
    for distributions, shown in ((None, False), (b"<script>", False), (picture, True)):
        text = write_report(full_run, distributions=distributions).read_text(encoding="utf-8")
        assert ("Distributions of area" in text) == (b64encode(picture).decode() in text) == shown


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"results": 3, "rows": [7], "queries": "x"}'])
def test_damaged_files_count_as_missing(full_run, content):
    for path in [*full_run.glob("*/*.json"), full_run / "environment.json", full_run / "metrics.jsonl"]:
        path.write_text(content, encoding="utf-8")
    (full_run / "views.png").write_bytes(b"<html>")
    assert "has not been measured yet" in page_of(full_run).text


def test_a_loss_that_is_not_finite_does_not_stop_the_page(full_run):
    with (full_run / "metrics.jsonl").open("a", encoding="utf-8") as log:
        log.write('\n{"step": 401, "epoch": 40.1, "loss": NaN}\n')
    assert "Last: not finite." in page_of(full_run).text


def test_the_same_run_gives_the_same_page(full_run, tmp_path):
    first, second = (write_report(full_run, tmp_path / name) for name in ("first.html", "second.html"))
    assert first == tmp_path / "first.html"
    assert first.read_bytes() == second.read_bytes()
    assert not (full_run / "report.html").exists()


@pytest.mark.parametrize("made", [True, False])
def test_a_folder_that_is_no_run_is_an_error(tmp_path, made):
    folder = tmp_path / "nothing"
    if made:
        folder.mkdir()
    with pytest.raises(LightSSLError, match=r"nothing is not a run(.|\n)*lightssl pretrain"):
        write_report(folder)
