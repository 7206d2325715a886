from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class IsAdminRequest(_message.Message):
    __slots__ = ("user_id",)
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    user_id: int
    def __init__(self, user_id: _Optional[int] = ...) -> None: ...

class IsAdminResponse(_message.Message):
    __slots__ = ("is_admin",)
    IS_ADMIN_FIELD_NUMBER: _ClassVar[int]
    is_admin: bool
    def __init__(self, is_admin: _Optional[bool] = ...) -> None: ...
