"""Routes of glot-run's API: users, languages, images, runs. Its JSON: `wire`. See also docs/reference/glot-run.md."""

from __future__ import annotations

import secrets
from functools import cache
from http import HTTPStatus
from importlib.resources import files

from litestar.enums import MediaType
from litestar.response.base import ASGIResponse

import firebox
from firebox.domain.errors import ContainerError, NotFound, Unauthenticated
from firebox.doors.glot import wire
from firebox.doors.http.credentials import identify, token_of
from firebox.doors.http.json_size import Checked
from firebox.doors.http.requests import AnyRequest, read_json_body, require_json, while_connected
from firebox.doors.http.routing import ANY_METHOD, Handler, Router, Routes, answer_json, error_handlers, handlers_of
from firebox.service.callers import Caller
from firebox.service.languages import read_native
from firebox.service.service import Service
from firebox.settings.settings import Settings
from firebox.storage.records import Language

UNKNOWN = (
    "/languages/{name:str}/{version:str}/{rest:path}",
    "/images/{rest:path}",
    "/admin/{section:str}",
    "/admin/{section:str}/{rest:path}",
    "/admin/users/{uuid:str}/{rest:path}",
    "/admin/languages/{language_id:str}/{rest:path}",
)
"""Unknown paths below ours, which get responses in this API's format too."""
PAGE_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


def routers(service: Service, settings: Settings) -> list[Router]:
    """Create the routes of this door."""
    door = Door(service, settings)
    routes: Routes = {
        "/": {"GET HEAD": door.root},
        "/languages": {"GET HEAD": door.list_languages},
        "/languages/{name:str}": {"GET HEAD": door.list_versions},
        "/languages/{name:str}/{version:str}": {"POST": door.run},
        "/images": {"GET HEAD": door.list_images},
        "/admin": {"GET HEAD": door.admin_root},
        "/admin/users": {"GET HEAD": door.list_users, "POST": door.create_user},
        "/admin/users/{uuid:str}": {"GET HEAD": door.read_user, "PUT": door.change_user, "DELETE": door.remove_user},
        "/admin/languages": {"GET HEAD": door.list_registered, "PUT": door.put_language},
        "/admin/languages/{language_id:str}": {"GET HEAD": door.read_language, "DELETE": door.remove_language},
        **{path: {ANY_METHOD: answer_unknown_route} for path in UNKNOWN},
    }
    errors = error_handlers(wire.from_error, wire.BUG, scheme="Token")
    return [Router("/", route_handlers=handlers_of(routes, _refuser), exception_handlers=errors)]


class Door:
    """Handlers, over one service."""

    def __init__(self, service: Service, settings: Settings) -> None:
        self._service = service
        self._settings = settings

    async def root(self, request: AnyRequest) -> ASGIResponse:
        """Return a page for browsers, or links for programs."""
        if "text/html" in request.headers.get("accept", ""):
            headers = {"Vary": "Accept", "Content-Security-Policy": PAGE_POLICY}
            return ASGIResponse(body=_page(), media_type=MediaType.HTML, headers=headers)
        links = self._links(request)
        root = wire.Root(
            name="firebox",
            description="Runs programs in sandboxes",
            version=firebox.__version__,
            urls={name: links.to(name) for name in ("admin", "images", "languages")},
        )
        return answer_json(root, headers={"Vary": "Accept"})

    async def list_languages(self, request: AnyRequest) -> ASGIResponse:
        links = self._links(request)
        names = sorted({language.name for language in await self._service.languages.all()})
        return answer_json([wire.NamedLink(name, links.to("languages", name)) for name in names])

    async def list_versions(self, request: AnyRequest, name: str) -> ASGIResponse:
        """List the versions of a language. Raises: NotFound."""
        links = self._links(request)
        found = await self._service.languages.versions(name)
        return answer_json([wire.VersionLink(each.version, links.to("languages", each.name, each.version)) for each in found])

    async def list_images(self, request: AnyRequest) -> ASGIResponse:
        """List the images, with the address that runs a program in each."""
        links = self._links(request)
        found: dict[str, wire.ImageLink] = {}
        for each in await self._service.languages.all():
            found.setdefault(each.image, wire.ImageLink(each.image, links.to("languages", each.name, each.version)))
        return answer_json(sorted(found.values(), key=lambda image: image.image))

    async def run(self, request: AnyRequest, name: str, version: str) -> ASGIResponse:
        """Run a program to its end. A client that disconnects cancels its run."""
        caller = await self._require_user(request)
        language = await self._service.languages.find(name, version)
        asked = wire.read_run(await self._read(request))
        return answer_json(await while_connected(request, self._answer_run(asked, language, caller)))

    async def _answer_run(self, asked: wire.RunRequest, language: Language, caller: Caller) -> wire.Answer:
        """Run a program in a container of the registered image, or in the sandbox. Cancelling this cancels the run. Raises:
        RunFailed for a failure of the program or its container; otherwise as `Service.start`.
        """
        native = read_native(language.image)
        if native is not None:
            # An unknown runtime does not count against the client's quota.
            self._service.resolve(native.language, native.version)
            result = await self._service.execute(wire.to_job(asked, native, self._settings), caller)
            return wire.from_result(result, self._settings.glot_output_bytes)
        async with self._service.start(wire.to_image_job(asked, language, self._settings), caller) as run:
            result = await run.result()
        if isinstance(run.failure, NotFound):
            raise ContainerError(f"the container engine has no image {language.image}")
        if run.failure is not None:
            raise run.failure
        return wire.from_container(result)

    async def admin_root(self, request: AnyRequest) -> ASGIResponse:
        """Return links to the management of users and languages."""
        links = self._links(request)
        return answer_json(wire.Root({"users": links.to("admin", "users"), "languages": links.to("admin", "languages")}))

    async def list_users(self, request: AnyRequest) -> ASGIResponse:
        await self._require_admin(request)
        links = self._links(request)
        return answer_json([wire.from_user(user, links) for user in await self._service.accounts.users.all()])

    async def create_user(self, request: AnyRequest) -> ASGIResponse:
        """Create a user, with a generated name. Raises: Conflict when the token is taken."""
        await self._require_admin(request)
        token = wire.read_token(await self._read(request))
        created = await self._service.accounts.create(f"glot-{secrets.token_hex(8)}", "user", token)
        return answer_json(wire.from_user(created.user, self._links(request), token))

    async def read_user(self, request: AnyRequest, uuid: str) -> ASGIResponse:
        """Return a user. Raises: NotFound."""
        await self._require_admin(request)
        return answer_json(wire.from_user(await self._service.accounts.users.by_uuid(uuid), self._links(request)))

    async def change_user(self, request: AnyRequest, uuid: str) -> ASGIResponse:
        """Replace the token of a user. Raises: NotFound, Conflict when it is taken."""
        await self._require_admin(request)
        user = await self._service.accounts.users.by_uuid(uuid)
        token = wire.read_token(await self._read(request))
        changed = await self._service.accounts.new_token(user.id, token)
        return answer_json(wire.from_user(changed.user, self._links(request), token))

    async def remove_user(self, request: AnyRequest, uuid: str) -> ASGIResponse:
        """Delete a user. Raises: NotFound."""
        await self._require_admin(request)
        await self._service.accounts.remove((await self._service.accounts.users.by_uuid(uuid)).id)
        return ASGIResponse(status_code=HTTPStatus.NO_CONTENT)

    async def list_registered(self, request: AnyRequest) -> ASGIResponse:
        await self._require_admin(request)
        links = self._links(request)
        return answer_json([wire.from_language(language, links) for language in await self._service.languages.all()])

    async def put_language(self, request: AnyRequest) -> ASGIResponse:
        """Register a language, or replace its image."""
        await self._require_admin(request)
        name, version, image = wire.read_language(await self._read(request))
        return answer_json(
            wire.from_language(await self._service.languages.put(name, version, image=image), self._links(request))
        )

    async def read_language(self, request: AnyRequest, language_id: str) -> ASGIResponse:
        """Return a language at a version. Raises: NotFound."""
        await self._require_admin(request)
        return answer_json(wire.from_language(await self._service.languages.get(language_id), None))

    async def remove_language(self, request: AnyRequest, language_id: str) -> ASGIResponse:
        """Unregister a language. Raises: NotFound, Conflict for a runtime of the host."""
        await self._require_admin(request)
        await self._service.languages.remove(language_id)
        return ASGIResponse(status_code=HTTPStatus.NO_CONTENT)

    async def _require_user(self, request: AnyRequest) -> Caller:
        """Require a user's token. Without accounts none is needed. Raises: Unauthenticated, also for the operator's token, which
        is for the admin routes.
        """
        if token_of(request.headers) is None and (self._settings.admin_token or self._settings.require_login):
            raise Unauthenticated("Missing auth token")
        caller = await self._identify(request)
        if caller.is_admin and caller.user_id is None:
            raise Unauthenticated("Wrong auth token")
        return caller

    async def _require_admin(self, request: AnyRequest) -> None:
        """Require the operator's token, or that of an admin. Raises: Unauthenticated."""
        if token_of(request.headers) is None:
            raise Unauthenticated("Missing auth token")
        if not (await self._identify(request)).is_admin:
            raise Unauthenticated("Wrong auth token")

    async def _identify(self, request: AnyRequest) -> Caller:
        try:
            return await identify(request, self._service)
        except Unauthenticated:
            raise Unauthenticated("Wrong auth token") from None

    async def _read(self, request: AnyRequest) -> Checked:
        require_json(request.headers)
        return await read_json_body(request.receive, request.headers, self._settings.max_body_bytes)

    def _links(self, request: AnyRequest) -> wire.Links:
        return wire.Links(self._settings.base_url or str(request.base_url))


async def answer_unknown_route() -> ASGIResponse:
    """Return the response for an unknown path."""
    return answer_json(wire.NOT_FOUND, HTTPStatus.NOT_FOUND)


def _refuser(allowed: list[str]) -> Handler:
    """Create the handler for the methods that a path does not support."""

    async def refuse() -> ASGIResponse:
        return answer_json(wire.WRONG_METHOD, HTTPStatus.METHOD_NOT_ALLOWED, headers={"Allow": ", ".join(allowed)})

    return refuse


@cache
def _page() -> bytes:
    return files("firebox.doors.glot").joinpath("page.html").read_bytes()
