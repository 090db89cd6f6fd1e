"""No case of two thousand that schemathesis makes ends in a 5xx or an undocumented answer."""

from pathlib import Path

from ..cli.processes import running


def test_no_case_of_two_thousand_ends_in_a_5xx_or_an_undocumented_answer(tmp_path: Path) -> None:
    # Imported here: it is large, and every worker collects this module.
    from .openapi_cases import send_all

    with running("serve", "--dev", "--port", "0", "--requests-per-minute", "0", cwd=tmp_path) as service:
        send_all(service.url)
        assert service.stop() == 0
        log = service.log.read_text()
        assert "Traceback" not in log, log
