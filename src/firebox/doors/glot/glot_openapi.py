"""OpenAPI description of glot-run's API. See also docs/reference/glot-run.md."""

from __future__ import annotations

from msgspec import Struct

from firebox.doors.glot import wire
from firebox.doors.http.openapi import BEARER, GLOT_TOKEN, NO_TOKEN, Answer, Body, Door, Group, Operation, Parameter

TAG, ADMIN_TAG = "glot", "glot-admin"


class TokenRequest(Struct):
    """The token of a user."""

    token: str


class LanguageRequest(Struct):
    """A language at a version, and the image that runs it."""

    name: str
    version: str
    image: str


_NAME = Parameter("name", "Name of the language.", example="python")
_VERSION = Parameter("version", "One of its versions.", example="latest")
_ONE_FILE = {"files": [{"name": "main.py", "content": "print(6 * 7)"}]}
_INPUT = {"files": [{"name": "main.sh", "content": "cat"}], "stdin": "Ada", "command": "bash main.sh"}
_RUN = Body(wire.RunRequest, {"python": ("A program of one file", _ONE_FILE), "input": ("Standard input and a command", _INPUT)})
# fmt: off
_PUBLIC = [
    Operation("GET /", "glot_root", "Links to the API", Answer("Links by name.", wire.Root),
        description="Browsers get a page instead."),
    Operation("GET /languages", "glot_list_languages", "List the languages",
        Answer("Names of the languages.", list[wire.NamedLink]), errors=[503]),
    Operation("GET /languages/{name}", "glot_list_versions", "List the versions of a language",
        Answer("The versions.", list[wire.VersionLink]), errors=[503]),
    Operation("POST /languages/{name}/{version}", "glot_run", "Run a program", Answer("The program has ended.", wire.Answer),
        _RUN, security=({}, {GLOT_TOKEN: []}, {BEARER: []})),
    Operation("GET /images", "glot_list_images", "List the images", Answer("The images.", list[wire.ImageLink]), errors=[503]),
]

_TOKEN = Body(TokenRequest, {"token": ("A token", {"token": "9f2c6a0e-52b1-4a8e-8f14-0f6a4d3d9c55"})})
_IMAGE = Body(LanguageRequest, {"python": ("An image", {"name": "python", "version": "latest", "image": "glot/python:latest"})})
_USER = Answer("The user.", wire.UserEntry)
_LANGUAGE = Answer("The language.", wire.LanguageEntry)
_ADMIN = [
    Operation("GET", "glot_admin_root", "Links to the management of users and languages", Answer("Links by name.", wire.Root),
        security=NO_TOKEN),
    Operation("GET /users", "glot_list_users", "List the users", Answer("The users.", list[wire.UserEntry])),
    Operation("POST /users", "glot_create_user", "Create a user", _USER, _TOKEN, errors=[409]),
    Operation("GET /users/{uuid}", "glot_get_user", "Get a user", _USER),
    Operation("PUT /users/{uuid}", "glot_change_user", "Replace the token of a user", _USER, _TOKEN, errors=[409]),
    Operation("DELETE /users/{uuid}", "glot_remove_user", "Delete a user", {204: Answer("The user has been deleted.")}),
    Operation("GET /languages", "glot_list_registered", "List the languages with their images",
        Answer("The languages.", list[wire.LanguageEntry])),
    Operation("PUT /languages", "glot_put_language", "Register a language or replace its image", _LANGUAGE, _IMAGE),
    Operation("GET /languages/{language_id}", "glot_get_language", "Get a language at a version", _LANGUAGE),
    Operation("DELETE /languages/{language_id}", "glot_remove_language", "Unregister a language",
        {204: Answer("The language has been unregistered.")}, errors=[409]),
]
# fmt: on

DOOR = Door(
    tags={TAG: "glot-run: languages and runs.", ADMIN_TAG: "glot-run: users and languages, for admins."},
    groups=[
        Group(TAG, _PUBLIC, parameters=[_NAME, _VERSION], security=NO_TOKEN),
        Group(
            ADMIN_TAG,
            _ADMIN,
            "/admin",
            parameters=[Parameter("uuid", "Id of the user."), Parameter("language_id", "Id of the language at its version.")],
            security=({GLOT_TOKEN: []}, {BEARER: []}),
        ),
    ],
    failure=wire.Message,
    prefix="Glot",
)
