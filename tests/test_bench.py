"""The page of benchmarks: what a run found, beside what earlier runs found."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from bench import __main__ as bench
from bench.report import Figure, Report, conditions, earlier_sections, render, section, shown

WHERE = "2 cores of a machine; Python 3.11"


@pytest.fixture
def page(tmp_path: Path) -> Path:
    return tmp_path / "benchmarks.md"


@pytest.fixture
def measures(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes these the sections, each with what it does."""

    def use(**sections: Callable[[Report], None]) -> None:
        modules = {
            f"bench.{name}": SimpleNamespace(__doc__=f"About {name}.\n\nMore.", main=main, PEERS=("urllib3",))
            for name, main in sections.items()
        }
        monkeypatch.setattr(bench, "sections", lambda: sorted(sections))
        monkeypatch.setattr(bench, "import_module", modules.__getitem__)

    return use


def reports(value: float) -> Callable[[Report], None]:
    def main(report: Report) -> None:
        report.table(("what", "messages/s"), [("ours", [1000.0, value, 3000.0]), ("theirs", 12.3)])
        report.compare([Figure("ours, x theirs", value, at_least=2000)])

    return main


def test_several_rounds_are_shown_with_their_range() -> None:
    assert shown([1234.5, 2000.4, 1999.6]) == "2,000 (1,234-2,000)"
    assert shown([0.123]) == "0.12"
    assert (shown(12.34), shown(7), shown(0.0), shown(99.96)) == ("12.3", "7", "0", "100.0")


@pytest.mark.parametrize(
    ("figure", "verdict"),
    [
        (Figure("", [1.0, 2.0, 9.0], at_least=2), "met"),
        (Figure("", [1.0, 1.9, 9.0], at_least=2), "MISSED"),
        (Figure("", 2.0, at_most=2), "met"),
        (Figure("", 2.1, at_most=2), "MISSED"),
        (Figure("", None, at_most=2, note="wrk is missing"), "not measured: wrk is missing"),
    ],
)
def test_the_median_meets_its_target_or_not(figure: Figure, verdict: str) -> None:
    assert figure.verdict == verdict


def test_a_section_has_its_tables_targets_and_conditions(capsys: pytest.CaptureFixture[str]) -> None:
    report = Report()
    reports(2500.0)(report)
    report.compare([Figure("another", None, at_most=1, note="it failed")])
    report.say("A sentence.")
    text = section("About it.", "2026-12-01", WHERE, 61.2, report)
    assert text.splitlines() == [
        "About it.",
        "",
        "| what | messages/s |",
        "| --- | --: |",
        "| ours | 2,500 (1,000-3,000) |",
        "| theirs | 12.3 |",
        "",
        "| figure | measured | target |  |",
        "| --- | --: | --: | --: |",
        "| ours, x theirs | 2,500 | ≥ 2000 | met |",
        "",
        "| figure | measured | target |  |",
        "| --- | --: | --: | --: |",
        "| another |  | ≤ 1 | not measured: it failed |",
        "",
        "A sentence.",
        "",
        f"Measured on 2026-12-01 in 61 s: 1 of 2 targets met, 1 not measured. {WHERE}.",
    ]
    assert report.markdown.strip() == capsys.readouterr().out.strip()


def test_a_page_is_read_back_as_it_was_written() -> None:
    sections = {"sdk": "About the SDK.\n\n| a |\n| --- |", "cli": "About commands."}
    assert earlier_sections(render(sections)) == sections
    assert render(earlier_sections(render(sections))) == render(sections)


def test_sections_that_are_not_run_keep_their_figures(page: Path, measures: Callable[..., None]) -> None:
    measures(sdk=reports(2500.0), cli=reports(1500.0))
    assert bench.main([], page) == 0
    first = earlier_sections(page.read_text())
    measures(sdk=reports(2700.0), cli=reports(1700.0))
    assert bench.main(["cli"], page) == 0
    second = earlier_sections(page.read_text())
    assert second["sdk"] == first["sdk"]
    assert "| ours, x theirs | 1,700 | ≥ 2000 | MISSED |" in second["cli"]
    assert "About cli." in second["cli"]
    assert "More." not in second["cli"]


def test_figures_of_a_run_with_errors_are_not_taken(
    page: Path, measures: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    measures(sdk=reports(2500.0), cli=reports(1500.0))
    assert bench.main([], page) == 0
    before = earlier_sections(page.read_text())

    def fails(report: Report) -> None:
        reports(9999.0)(report)
        raise RuntimeError("3 of 1000 requests failed")

    measures(sdk=reports(2700.0), cli=fails)
    assert bench.main([], page) == 1
    after = earlier_sections(page.read_text())
    assert after["cli"] == before["cli"]
    assert "2,700" in after["sdk"]
    assert "3 of 1000 requests failed" in capsys.readouterr().err


def test_help_lists_the_sections(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        bench.main(["--help"])
    assert ended.value.code == 0
    out = capsys.readouterr().out
    assert all(f"\n  {name} " in out for name in bench.sections())
    assert {"delivery", "sdk", "service"} <= set(bench.sections())


def test_an_unknown_section_is_a_usage_error(capsys: pytest.CaptureFixture[str], page: Path) -> None:
    with pytest.raises(SystemExit) as ended:
        bench.main(["nonsense"], page)
    assert ended.value.code == 2
    assert "unknown section: nonsense; sections: " in capsys.readouterr().err
    assert not page.exists()


def test_conditions_name_the_machine_and_the_versions() -> None:
    found = conditions(("urllib3",))
    assert " cores of " in found
    assert all(f"{name} " in found for name in ("fotahook", "Python", "SQLite", "PostgreSQL", "urllib3"))
