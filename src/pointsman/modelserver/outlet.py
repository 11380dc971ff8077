"""Where a replica's steps go besides its metrics: the trace and the KV cache events."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pointsman.modelserver.replica import Replica
from pointsman.modelserver.trace import StepTrace

if TYPE_CHECKING:
    from pointsman.modelserver.engine import StepResult
    from pointsman.modelserver.events import EventPublisher


class Outlet:
    """Listens to a replica's steps as its options ask for.

    Raises:
        OSError: if the trace or an endpoint cannot be opened.
    """

    def __init__(self, replica: Replica) -> None:
        options = replica.options
        self._replica = replica
        self._trace: StepTrace | None = None
        self.publisher: EventPublisher | None = None
        if options.trace_path:
            self._trace = StepTrace(options.trace_path, replica.number)
            replica.step_listeners.append(self._trace.write)
        if options.events is not None:
            # Imported where it is used: ZMQ costs a tenth of a second at the start.
            from pointsman.modelserver.events import EventPublisher  # noqa: PLC0415

            self.publisher = EventPublisher(options.events, replica.number)
            replica.step_listeners.append(self._publish)

    def _publish(self, result: StepResult) -> None:
        pool = self._replica.driver.engine.scheduler.pool
        if pool.events and self.publisher is not None:
            events, pool.events = pool.events, []
            self.publisher.publish(events)

    async def close(self) -> None:
        """Closes file and sockets."""
        if self._trace is not None:
            self._trace.close()
        if self.publisher is not None:
            await self.publisher.close()
