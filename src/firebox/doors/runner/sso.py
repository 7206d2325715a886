"""Client of the single sign-on service, which decides who is an admin. gRPC."""

from __future__ import annotations

import grpc
import structlog
from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from firebox.domain.errors import PartUnavailable
from firebox.doors.runner.proto.auth_pb2 import IsAdminRequest, IsAdminResponse
from firebox.settings.settings import Settings

WORTH_ASKING_AGAIN = (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.ABORTED, grpc.StatusCode.DEADLINE_EXCEEDED)
LONGEST_PAUSE_S = 0.5

_OPTIONS = (
    # A connection per request: after an outage the service is reached again at once.
    ("grpc.use_local_subchannel_pool", 1),
    # The operator chose this address: no proxy of the environment may see it.
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_receive_message_length", 64 * 1024),
)

_log = structlog.get_logger("firebox.runner")


class SignOnService:
    """Client of the service at `sso_address`. Nothing is cached: rights may be revoked at any time."""

    def __init__(self, settings: Settings) -> None:
        self._address = settings.sso_address
        self._timeout_s = settings.sso_timeout_ms / 1000
        self._tries = 1 + settings.sso_retries

    async def is_admin(self, user_id: int) -> bool:
        """Return whether a user is an admin. Raises: PartUnavailable when the service does not answer, for whatever reason. The
        user is then treated as no admin.
        """
        tries = AsyncRetrying(
            retry=retry_if_exception(_is_transient),
            stop=stop_after_attempt(self._tries),
            wait=wait_random_exponential(multiplier=0.05, max=LONGEST_PAUSE_S),
            reraise=True,
        )
        try:
            async with grpc.aio.insecure_channel(self._address, options=_OPTIONS) as channel:
                ask: grpc.aio.UnaryUnaryMultiCallable[IsAdminRequest, IsAdminResponse] = channel.unary_unary(
                    "/auth.Auth/IsAdmin", IsAdminRequest.SerializeToString, IsAdminResponse.FromString
                )
                async for attempt in tries:
                    with attempt:
                        answer = await ask(IsAdminRequest(user_id=user_id), timeout=self._timeout_s)
                        return answer.is_admin
        except grpc.aio.AioRpcError as error:
            # Its details are logged only, never sent to the client.
            _log.warning("the sign-on service did not answer", status=error.code().name, details=(error.details() or "")[:200])
            raise PartUnavailable("sign-on service", detail=error.code().name) from None
        raise PartUnavailable("sign-on service")


def _is_transient(error: BaseException) -> bool:
    return isinstance(error, grpc.aio.AioRpcError) and error.code() in WORTH_ASKING_AGAIN
