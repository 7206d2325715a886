"""What is recorded of runs: metrics, log lines and CPU time; never code, input or output."""

from __future__ import annotations

import structlog

from firebox.domain.errors import FireboxError
from firebox.domain.model import Job, Result, Run, Verdict
from firebox.service.quotas import Charge
from firebox.service.run_metrics import Metrics

_CONTAINER_OUTCOMES = {Verdict.WALL_TIME: "timed_out", Verdict.OUTPUT: "overflowed"}

_log = structlog.get_logger("firebox.service")


class RunRecords:
    """Records every run that ends or is refused."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._charges: dict[str, Charge] = {}

    def charge(self, run_id: str, charge: Charge) -> None:
        """Have a run's CPU time added to a charge."""
        self._charges[run_id] = charge

    def note_refusal(self, job: Job, error: FireboxError) -> None:
        """Record a job that was not admitted, or whose container could not be created."""
        self._metrics.count_refusal(error)
        _log.info("run refused" if job.image is None else "container refused", code=error.code, client=job.client)

    def note_result(self, run: Run, result: Result) -> None:
        """Record a run that has ended."""
        charge = self._charges.pop(run.id, None)
        if run.job.image is not None:
            self._note_container(run, run.job.image.name, result, charge)
            return
        if charge is not None:
            charge.cpu_ms += sum(stage.cpu_ms for stage in (result.compile, result.run) if stage is not None)
        self._metrics.count_result(result)
        _log.info(
            "run ended",
            id=result.id,
            language=result.runtime.language,
            version=result.runtime.version,
            verdict=result.verdict.value,
            queue_ms=round(result.timings.queue_ms, 1),
            prepare_ms=round(result.timings.prepare_ms, 1),
            compile_ms=round(result.timings.compile_ms, 1),
            run_ms=round(result.timings.run_ms, 1),
        )

    def _note_container(self, run: Run, image: str, result: Result, charge: Charge | None) -> None:
        """Record a container. Its wall time counts as CPU time, which is not known."""
        stage = result.run
        if stage is None and isinstance(run.failure, FireboxError):
            self.note_refusal(run.job, run.failure)
            return
        if stage is None and result.verdict is Verdict.CANCELLED:
            return  # it left the queue: there was no container
        wall_ms = stage.wall_ms if stage is not None else 0.0
        outcome = "failed"
        if stage is not None:
            outcome = _CONTAINER_OUTCOMES.get(stage.verdict, "failed" if stage.exit_code is None else "exited")
        if charge is not None:
            charge.cpu_ms += wall_ms
        self._metrics.count_container(outcome)
        _log.info("container ended", image=image, outcome=outcome, wall_ms=round(wall_ms, 1))
