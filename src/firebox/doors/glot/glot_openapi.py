"""OpenAPI description of glot-run's API. See also docs/reference/glot-run.md."""

from __future__ import annotations

from msgspec import Struct

from firebox.doors.glot import wire
from firebox.doors.http.openapi import ASKER, BEARER, BODY, GLOT_TOKEN, NO_TOKEN, Answer, Door, Operation, Parameter, Security

TAG, ADMIN_TAG = "glot", "glot-admin"


class TokenRequest(Struct):
    """The token of a user."""

    token: str


class LanguageRequest(Struct):
    """A language at a version, and the image that runs it."""

    name: str
    version: str
    image: str


_USER: Security = ({}, {GLOT_TOKEN: []}, {BEARER: []})
_ADMIN: Security = ({GLOT_TOKEN: []}, {BEARER: []})
_UUID = Parameter("uuid", "Id of the user.")
_LANGUAGE_ID = Parameter("language_id", "Id of the language at its version.")
_NAME = Parameter("name", "Name of the language.", example="python")
_RUN = {
    "python": ("A program of one file", {"files": [{"name": "main.py", "content": "print(6 * 7)"}]}),
    "input": (
        "Standard input and a command",
        {"files": [{"name": "main.sh", "content": "cat"}], "stdin": "Ada", "command": "bash main.sh"},
    ),
}


def describe() -> Door:
    """Describe the operations."""
    return Door(
        tags={TAG: "glot-run: languages and runs.", ADMIN_TAG: "glot-run: users and languages, for admins."},
        failure=wire.Message,
        prefix="Glot",
        operations=[*_public(), *_users(), *_languages()],
    )


def _public() -> list[Operation]:
    return [
        Operation(
            "get",
            "/",
            "glot_root",
            TAG,
            "Links to the API",
            description="Browsers get a page instead.",
            answers={200: Answer("Links by name.", wire.Root)},
            security=NO_TOKEN,
        ),
        Operation(
            "get",
            "/languages",
            "glot_list_languages",
            TAG,
            "List the languages",
            answers={200: Answer("Names of the languages.", list[wire.NamedLink])},
            errors=(503,),
            security=NO_TOKEN,
        ),
        Operation(
            "get",
            "/languages/{name}",
            "glot_list_versions",
            TAG,
            "List the versions of a language",
            parameters=[_NAME],
            answers={200: Answer("The versions.", list[wire.VersionLink])},
            errors=(404, 503),
            security=NO_TOKEN,
        ),
        Operation(
            "post",
            "/languages/{name}/{version}",
            "glot_run",
            TAG,
            "Run a program",
            parameters=[_NAME, Parameter("version", "One of its versions.", example="latest")],
            body=wire.RunRequest,
            examples=_RUN,
            answers={200: Answer("The program has ended.", wire.Answer)},
            errors=(*BODY, *ASKER, 404),
            security=_USER,
        ),
        Operation(
            "get",
            "/images",
            "glot_list_images",
            TAG,
            "List the images",
            answers={200: Answer("The images.", list[wire.ImageLink])},
            errors=(503,),
            security=NO_TOKEN,
        ),
        Operation(
            "get",
            "/admin",
            "glot_admin_root",
            ADMIN_TAG,
            "Links to the management of users and languages",
            answers={200: Answer("Links by name.", wire.Root)},
            security=NO_TOKEN,
        ),
    ]


def _users() -> list[Operation]:
    token = {"token": ("A token", {"token": "9f2c6a0e-52b1-4a8e-8f14-0f6a4d3d9c55"})}
    return [
        Operation(
            "get",
            "/admin/users",
            "glot_list_users",
            ADMIN_TAG,
            "List the users",
            answers={200: Answer("The users.", list[wire.UserEntry])},
            errors=ASKER,
            security=_ADMIN,
        ),
        Operation(
            "post",
            "/admin/users",
            "glot_create_user",
            ADMIN_TAG,
            "Create a user",
            body=TokenRequest,
            examples=token,
            answers={200: Answer("The user.", wire.UserEntry)},
            errors=(*BODY, *ASKER, 409),
            security=_ADMIN,
        ),
        Operation(
            "get",
            "/admin/users/{uuid}",
            "glot_get_user",
            ADMIN_TAG,
            "Get a user",
            parameters=[_UUID],
            answers={200: Answer("The user.", wire.UserEntry)},
            errors=(404, *ASKER),
            security=_ADMIN,
        ),
        Operation(
            "put",
            "/admin/users/{uuid}",
            "glot_change_user",
            ADMIN_TAG,
            "Replace the token of a user",
            parameters=[_UUID],
            body=TokenRequest,
            examples=token,
            answers={200: Answer("The user.", wire.UserEntry)},
            errors=(*BODY, 404, 409, *ASKER),
            security=_ADMIN,
        ),
        Operation(
            "delete",
            "/admin/users/{uuid}",
            "glot_remove_user",
            ADMIN_TAG,
            "Delete a user",
            parameters=[_UUID],
            answers={204: Answer("The user has been deleted.")},
            errors=(404, *ASKER),
            security=_ADMIN,
        ),
    ]


def _languages() -> list[Operation]:
    return [
        Operation(
            "get",
            "/admin/languages",
            "glot_list_registered",
            ADMIN_TAG,
            "List the languages with their images",
            answers={200: Answer("The languages.", list[wire.LanguageEntry])},
            errors=ASKER,
            security=_ADMIN,
        ),
        Operation(
            "put",
            "/admin/languages",
            "glot_put_language",
            ADMIN_TAG,
            "Register a language or replace its image",
            body=LanguageRequest,
            examples={"python": ("An image", {"name": "python", "version": "latest", "image": "glot/python:latest"})},
            answers={200: Answer("The language.", wire.LanguageEntry)},
            errors=(*BODY, *ASKER),
            security=_ADMIN,
        ),
        Operation(
            "get",
            "/admin/languages/{language_id}",
            "glot_get_language",
            ADMIN_TAG,
            "Get a language at a version",
            parameters=[_LANGUAGE_ID],
            answers={200: Answer("The language.", wire.LanguageEntry)},
            errors=(404, *ASKER),
            security=_ADMIN,
        ),
        Operation(
            "delete",
            "/admin/languages/{language_id}",
            "glot_remove_language",
            ADMIN_TAG,
            "Unregister a language",
            parameters=[_LANGUAGE_ID],
            answers={204: Answer("The language has been unregistered.")},
            errors=(404, 409, *ASKER),
            security=_ADMIN,
        ),
    ]
