from google.protobuf import struct_pb2 as _struct_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class PrincipalKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PRINCIPAL_KIND_UNSPECIFIED: _ClassVar[PrincipalKind]
    PRINCIPAL_KIND_PERSON: _ClassVar[PrincipalKind]
    PRINCIPAL_KIND_SERVICE: _ClassVar[PrincipalKind]
    PRINCIPAL_KIND_DERIVED: _ClassVar[PrincipalKind]

class Surface(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SURFACE_UNSPECIFIED: _ClassVar[Surface]
    SURFACE_WEB: _ClassVar[Surface]
    SURFACE_DESKTOP: _ClassVar[Surface]
    SURFACE_MOBILE: _ClassVar[Surface]
    SURFACE_ONYX: _ClassVar[Surface]
    SURFACE_SERVICE: _ClassVar[Surface]

class GrantBasis(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    GRANT_BASIS_UNSPECIFIED: _ClassVar[GrantBasis]
    GRANT_BASIS_OWNER: _ClassVar[GrantBasis]
    GRANT_BASIS_ORG_MEMBER: _ClassVar[GrantBasis]
    GRANT_BASIS_ORG_ADMIN: _ClassVar[GrantBasis]
    GRANT_BASIS_DEVICE: _ClassVar[GrantBasis]
    GRANT_BASIS_KEY: _ClassVar[GrantBasis]

class RevokeScope(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REVOKE_SCOPE_UNSPECIFIED: _ClassVar[RevokeScope]
    REVOKE_SCOPE_SESSION: _ClassVar[RevokeScope]
    REVOKE_SCOPE_DEVICE: _ClassVar[RevokeScope]
    REVOKE_SCOPE_OTHERS: _ClassVar[RevokeScope]
    REVOKE_SCOPE_ALL: _ClassVar[RevokeScope]

class RevocationKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REVOCATION_KIND_UNSPECIFIED: _ClassVar[RevocationKind]
    REVOCATION_KIND_SESSION: _ClassVar[RevocationKind]
    REVOCATION_KIND_KEY: _ClassVar[RevocationKind]
    REVOCATION_KIND_MEMBERSHIP: _ClassVar[RevocationKind]

class RedeemResult(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REDEEM_RESULT_UNSPECIFIED: _ClassVar[RedeemResult]
    REDEEM_RESULT_OK: _ClassVar[RedeemResult]
    REDEEM_RESULT_REPLAYED: _ClassVar[RedeemResult]
    REDEEM_RESULT_REVOKED: _ClassVar[RedeemResult]

class NodeAuditAction(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    NODE_AUDIT_ACTION_UNSPECIFIED: _ClassVar[NodeAuditAction]
    NODE_AUDIT_ACTION_UPGRADE: _ClassVar[NodeAuditAction]
    NODE_AUDIT_ACTION_HELLO: _ClassVar[NodeAuditAction]
    NODE_AUDIT_ACTION_RENEW: _ClassVar[NodeAuditAction]
    NODE_AUDIT_ACTION_SUBSCRIBE: _ClassVar[NodeAuditAction]
    NODE_AUDIT_ACTION_EVICT_CONNECTION: _ClassVar[NodeAuditAction]
    NODE_AUDIT_ACTION_EVICT_TOPIC: _ClassVar[NodeAuditAction]
    NODE_AUDIT_ACTION_LIMIT: _ClassVar[NodeAuditAction]

class AuditGap(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    AUDIT_GAP_UNSPECIFIED: _ClassVar[AuditGap]
    AUDIT_GAP_RATIONED: _ClassVar[AuditGap]
    AUDIT_GAP_NO_ROOM: _ClassVar[AuditGap]
    AUDIT_GAP_REFUSED: _ClassVar[AuditGap]
PRINCIPAL_KIND_UNSPECIFIED: PrincipalKind
PRINCIPAL_KIND_PERSON: PrincipalKind
PRINCIPAL_KIND_SERVICE: PrincipalKind
PRINCIPAL_KIND_DERIVED: PrincipalKind
SURFACE_UNSPECIFIED: Surface
SURFACE_WEB: Surface
SURFACE_DESKTOP: Surface
SURFACE_MOBILE: Surface
SURFACE_ONYX: Surface
SURFACE_SERVICE: Surface
GRANT_BASIS_UNSPECIFIED: GrantBasis
GRANT_BASIS_OWNER: GrantBasis
GRANT_BASIS_ORG_MEMBER: GrantBasis
GRANT_BASIS_ORG_ADMIN: GrantBasis
GRANT_BASIS_DEVICE: GrantBasis
GRANT_BASIS_KEY: GrantBasis
REVOKE_SCOPE_UNSPECIFIED: RevokeScope
REVOKE_SCOPE_SESSION: RevokeScope
REVOKE_SCOPE_DEVICE: RevokeScope
REVOKE_SCOPE_OTHERS: RevokeScope
REVOKE_SCOPE_ALL: RevokeScope
REVOCATION_KIND_UNSPECIFIED: RevocationKind
REVOCATION_KIND_SESSION: RevocationKind
REVOCATION_KIND_KEY: RevocationKind
REVOCATION_KIND_MEMBERSHIP: RevocationKind
REDEEM_RESULT_UNSPECIFIED: RedeemResult
REDEEM_RESULT_OK: RedeemResult
REDEEM_RESULT_REPLAYED: RedeemResult
REDEEM_RESULT_REVOKED: RedeemResult
NODE_AUDIT_ACTION_UNSPECIFIED: NodeAuditAction
NODE_AUDIT_ACTION_UPGRADE: NodeAuditAction
NODE_AUDIT_ACTION_HELLO: NodeAuditAction
NODE_AUDIT_ACTION_RENEW: NodeAuditAction
NODE_AUDIT_ACTION_SUBSCRIBE: NodeAuditAction
NODE_AUDIT_ACTION_EVICT_CONNECTION: NodeAuditAction
NODE_AUDIT_ACTION_EVICT_TOPIC: NodeAuditAction
NODE_AUDIT_ACTION_LIMIT: NodeAuditAction
AUDIT_GAP_UNSPECIFIED: AuditGap
AUDIT_GAP_RATIONED: AuditGap
AUDIT_GAP_NO_ROOM: AuditGap
AUDIT_GAP_REFUSED: AuditGap

class DevSignInRequest(_message.Message):
    __slots__ = ("login", "device_id", "surface")
    LOGIN_FIELD_NUMBER: _ClassVar[int]
    DEVICE_ID_FIELD_NUMBER: _ClassVar[int]
    SURFACE_FIELD_NUMBER: _ClassVar[int]
    login: str
    device_id: str
    surface: Surface
    def __init__(self, login: _Optional[str] = ..., device_id: _Optional[str] = ..., surface: _Optional[_Union[Surface, str, int]] = ...) -> None: ...

class SessionTokens(_message.Message):
    __slots__ = ("access_token", "access_expires_at", "refresh_token", "refresh_expires_at", "session")
    ACCESS_TOKEN_FIELD_NUMBER: _ClassVar[int]
    ACCESS_EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    REFRESH_TOKEN_FIELD_NUMBER: _ClassVar[int]
    REFRESH_EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    access_token: str
    access_expires_at: int
    refresh_token: str
    refresh_expires_at: int
    session: Session
    def __init__(self, access_token: _Optional[str] = ..., access_expires_at: _Optional[int] = ..., refresh_token: _Optional[str] = ..., refresh_expires_at: _Optional[int] = ..., session: _Optional[_Union[Session, _Mapping[str, object]]] = ...) -> None: ...

class Session(_message.Message):
    __slots__ = ("session_id", "user_id", "device_id", "surface", "created_at", "expires_at", "revoked_at", "orgs", "login", "revoked_reason", "revoked_by")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    DEVICE_ID_FIELD_NUMBER: _ClassVar[int]
    SURFACE_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    REVOKED_AT_FIELD_NUMBER: _ClassVar[int]
    ORGS_FIELD_NUMBER: _ClassVar[int]
    LOGIN_FIELD_NUMBER: _ClassVar[int]
    REVOKED_REASON_FIELD_NUMBER: _ClassVar[int]
    REVOKED_BY_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    user_id: str
    device_id: str
    surface: Surface
    created_at: int
    expires_at: int
    revoked_at: int
    orgs: _containers.RepeatedCompositeFieldContainer[OrgMembership]
    login: str
    revoked_reason: str
    revoked_by: str
    def __init__(self, session_id: _Optional[str] = ..., user_id: _Optional[str] = ..., device_id: _Optional[str] = ..., surface: _Optional[_Union[Surface, str, int]] = ..., created_at: _Optional[int] = ..., expires_at: _Optional[int] = ..., revoked_at: _Optional[int] = ..., orgs: _Optional[_Iterable[_Union[OrgMembership, _Mapping[str, object]]]] = ..., login: _Optional[str] = ..., revoked_reason: _Optional[str] = ..., revoked_by: _Optional[str] = ...) -> None: ...

class OrgMembership(_message.Message):
    __slots__ = ("org_id", "name", "role")
    ORG_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    org_id: str
    name: str
    role: str
    def __init__(self, org_id: _Optional[str] = ..., name: _Optional[str] = ..., role: _Optional[str] = ...) -> None: ...

class ExchangeCodeRequest(_message.Message):
    __slots__ = ("code", "code_verifier")
    CODE_FIELD_NUMBER: _ClassVar[int]
    CODE_VERIFIER_FIELD_NUMBER: _ClassVar[int]
    code: str
    code_verifier: str
    def __init__(self, code: _Optional[str] = ..., code_verifier: _Optional[str] = ...) -> None: ...

class RefreshRequest(_message.Message):
    __slots__ = ("refresh_token", "device_id")
    REFRESH_TOKEN_FIELD_NUMBER: _ClassVar[int]
    DEVICE_ID_FIELD_NUMBER: _ClassVar[int]
    refresh_token: str
    device_id: str
    def __init__(self, refresh_token: _Optional[str] = ..., device_id: _Optional[str] = ...) -> None: ...

class LogoutRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class LogoutResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListSessionsResponse(_message.Message):
    __slots__ = ("sessions",)
    SESSIONS_FIELD_NUMBER: _ClassVar[int]
    sessions: _containers.RepeatedCompositeFieldContainer[Session]
    def __init__(self, sessions: _Optional[_Iterable[_Union[Session, _Mapping[str, object]]]] = ...) -> None: ...

class RevokeSessionsRequest(_message.Message):
    __slots__ = ("scope", "session_id", "device_id")
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    DEVICE_ID_FIELD_NUMBER: _ClassVar[int]
    scope: RevokeScope
    session_id: str
    device_id: str
    def __init__(self, scope: _Optional[_Union[RevokeScope, str, int]] = ..., session_id: _Optional[str] = ..., device_id: _Optional[str] = ...) -> None: ...

class RevokeSubjectRequest(_message.Message):
    __slots__ = ("user_id", "device_id")
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    DEVICE_ID_FIELD_NUMBER: _ClassVar[int]
    user_id: str
    device_id: str
    def __init__(self, user_id: _Optional[str] = ..., device_id: _Optional[str] = ...) -> None: ...

class RevokeSessionsResponse(_message.Message):
    __slots__ = ("session_ids",)
    SESSION_IDS_FIELD_NUMBER: _ClassVar[int]
    session_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, session_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class Revocation(_message.Message):
    __slots__ = ("seq", "kind", "session_id", "key_id", "org_id", "user_id", "revoked_at")
    SEQ_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    ORG_ID_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    REVOKED_AT_FIELD_NUMBER: _ClassVar[int]
    seq: int
    kind: RevocationKind
    session_id: str
    key_id: str
    org_id: str
    user_id: str
    revoked_at: int
    def __init__(self, seq: _Optional[int] = ..., kind: _Optional[_Union[RevocationKind, str, int]] = ..., session_id: _Optional[str] = ..., key_id: _Optional[str] = ..., org_id: _Optional[str] = ..., user_id: _Optional[str] = ..., revoked_at: _Optional[int] = ...) -> None: ...

class RevocationsResponse(_message.Message):
    __slots__ = ("revocations", "head_seq", "floor_seq")
    REVOCATIONS_FIELD_NUMBER: _ClassVar[int]
    HEAD_SEQ_FIELD_NUMBER: _ClassVar[int]
    FLOOR_SEQ_FIELD_NUMBER: _ClassVar[int]
    revocations: _containers.RepeatedCompositeFieldContainer[Revocation]
    head_seq: int
    floor_seq: int
    def __init__(self, revocations: _Optional[_Iterable[_Union[Revocation, _Mapping[str, object]]]] = ..., head_seq: _Optional[int] = ..., floor_seq: _Optional[int] = ...) -> None: ...

class SyncTokenSubject(_message.Message):
    __slots__ = ("user_id", "device_id")
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    DEVICE_ID_FIELD_NUMBER: _ClassVar[int]
    user_id: str
    device_id: str
    def __init__(self, user_id: _Optional[str] = ..., device_id: _Optional[str] = ...) -> None: ...

class SyncTokenRequest(_message.Message):
    __slots__ = ("topics", "device_id", "ttl_s", "subject", "surface")
    TOPICS_FIELD_NUMBER: _ClassVar[int]
    DEVICE_ID_FIELD_NUMBER: _ClassVar[int]
    TTL_S_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    SURFACE_FIELD_NUMBER: _ClassVar[int]
    topics: _containers.RepeatedScalarFieldContainer[str]
    device_id: str
    ttl_s: int
    subject: SyncTokenSubject
    surface: Surface
    def __init__(self, topics: _Optional[_Iterable[str]] = ..., device_id: _Optional[str] = ..., ttl_s: _Optional[int] = ..., subject: _Optional[_Union[SyncTokenSubject, _Mapping[str, object]]] = ..., surface: _Optional[_Union[Surface, str, int]] = ...) -> None: ...

class SyncTokenResponse(_message.Message):
    __slots__ = ("token", "jti", "expires_at", "grants")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    JTI_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    GRANTS_FIELD_NUMBER: _ClassVar[int]
    token: str
    jti: str
    expires_at: int
    grants: _containers.RepeatedCompositeFieldContainer[TopicGrant]
    def __init__(self, token: _Optional[str] = ..., jti: _Optional[str] = ..., expires_at: _Optional[int] = ..., grants: _Optional[_Iterable[_Union[TopicGrant, _Mapping[str, object]]]] = ...) -> None: ...

class TopicGrant(_message.Message):
    __slots__ = ("topic", "basis", "org_id")
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    BASIS_FIELD_NUMBER: _ClassVar[int]
    ORG_ID_FIELD_NUMBER: _ClassVar[int]
    topic: str
    basis: GrantBasis
    org_id: str
    def __init__(self, topic: _Optional[str] = ..., basis: _Optional[_Union[GrantBasis, str, int]] = ..., org_id: _Optional[str] = ...) -> None: ...

class CreateKeyRequest(_message.Message):
    __slots__ = ("name", "rights", "topics", "org_id", "ttl_s")
    NAME_FIELD_NUMBER: _ClassVar[int]
    RIGHTS_FIELD_NUMBER: _ClassVar[int]
    TOPICS_FIELD_NUMBER: _ClassVar[int]
    ORG_ID_FIELD_NUMBER: _ClassVar[int]
    TTL_S_FIELD_NUMBER: _ClassVar[int]
    name: str
    rights: _containers.RepeatedScalarFieldContainer[str]
    topics: _containers.RepeatedScalarFieldContainer[str]
    org_id: str
    ttl_s: int
    def __init__(self, name: _Optional[str] = ..., rights: _Optional[_Iterable[str]] = ..., topics: _Optional[_Iterable[str]] = ..., org_id: _Optional[str] = ..., ttl_s: _Optional[int] = ...) -> None: ...

class ServiceKey(_message.Message):
    __slots__ = ("key_id", "name", "org_id", "rights", "topics", "created_at", "expires_at", "last_used_at", "revoked_at", "rotated_at", "old_secret_ends_at")
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    ORG_ID_FIELD_NUMBER: _ClassVar[int]
    RIGHTS_FIELD_NUMBER: _ClassVar[int]
    TOPICS_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    LAST_USED_AT_FIELD_NUMBER: _ClassVar[int]
    REVOKED_AT_FIELD_NUMBER: _ClassVar[int]
    ROTATED_AT_FIELD_NUMBER: _ClassVar[int]
    OLD_SECRET_ENDS_AT_FIELD_NUMBER: _ClassVar[int]
    key_id: str
    name: str
    org_id: str
    rights: _containers.RepeatedScalarFieldContainer[str]
    topics: _containers.RepeatedScalarFieldContainer[str]
    created_at: int
    expires_at: int
    last_used_at: int
    revoked_at: int
    rotated_at: int
    old_secret_ends_at: int
    def __init__(self, key_id: _Optional[str] = ..., name: _Optional[str] = ..., org_id: _Optional[str] = ..., rights: _Optional[_Iterable[str]] = ..., topics: _Optional[_Iterable[str]] = ..., created_at: _Optional[int] = ..., expires_at: _Optional[int] = ..., last_used_at: _Optional[int] = ..., revoked_at: _Optional[int] = ..., rotated_at: _Optional[int] = ..., old_secret_ends_at: _Optional[int] = ...) -> None: ...

class CreateKeyResponse(_message.Message):
    __slots__ = ("key", "secret")
    KEY_FIELD_NUMBER: _ClassVar[int]
    SECRET_FIELD_NUMBER: _ClassVar[int]
    key: ServiceKey
    secret: str
    def __init__(self, key: _Optional[_Union[ServiceKey, _Mapping[str, object]]] = ..., secret: _Optional[str] = ...) -> None: ...

class ListKeysResponse(_message.Message):
    __slots__ = ("keys",)
    KEYS_FIELD_NUMBER: _ClassVar[int]
    keys: _containers.RepeatedCompositeFieldContainer[ServiceKey]
    def __init__(self, keys: _Optional[_Iterable[_Union[ServiceKey, _Mapping[str, object]]]] = ...) -> None: ...

class RevokeKeyResponse(_message.Message):
    __slots__ = ("key",)
    KEY_FIELD_NUMBER: _ClassVar[int]
    key: ServiceKey
    def __init__(self, key: _Optional[_Union[ServiceKey, _Mapping[str, object]]] = ...) -> None: ...

class RotateKeyRequest(_message.Message):
    __slots__ = ("overlap_s", "ttl_s")
    OVERLAP_S_FIELD_NUMBER: _ClassVar[int]
    TTL_S_FIELD_NUMBER: _ClassVar[int]
    overlap_s: int
    ttl_s: int
    def __init__(self, overlap_s: _Optional[int] = ..., ttl_s: _Optional[int] = ...) -> None: ...

class RotateKeyResponse(_message.Message):
    __slots__ = ("key", "secret")
    KEY_FIELD_NUMBER: _ClassVar[int]
    SECRET_FIELD_NUMBER: _ClassVar[int]
    key: ServiceKey
    secret: str
    def __init__(self, key: _Optional[_Union[ServiceKey, _Mapping[str, object]]] = ..., secret: _Optional[str] = ...) -> None: ...

class ResolvePrincipalRequest(_message.Message):
    __slots__ = ("credential",)
    CREDENTIAL_FIELD_NUMBER: _ClassVar[int]
    credential: str
    def __init__(self, credential: _Optional[str] = ...) -> None: ...

class Principal(_message.Message):
    __slots__ = ("kind", "principal_id", "user_id", "session_id", "device_id", "orgs", "rights", "topics", "expires_at")
    KIND_FIELD_NUMBER: _ClassVar[int]
    PRINCIPAL_ID_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    DEVICE_ID_FIELD_NUMBER: _ClassVar[int]
    ORGS_FIELD_NUMBER: _ClassVar[int]
    RIGHTS_FIELD_NUMBER: _ClassVar[int]
    TOPICS_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    kind: PrincipalKind
    principal_id: str
    user_id: str
    session_id: str
    device_id: str
    orgs: _containers.RepeatedCompositeFieldContainer[OrgMembership]
    rights: _containers.RepeatedScalarFieldContainer[str]
    topics: _containers.RepeatedScalarFieldContainer[str]
    expires_at: int
    def __init__(self, kind: _Optional[_Union[PrincipalKind, str, int]] = ..., principal_id: _Optional[str] = ..., user_id: _Optional[str] = ..., session_id: _Optional[str] = ..., device_id: _Optional[str] = ..., orgs: _Optional[_Iterable[_Union[OrgMembership, _Mapping[str, object]]]] = ..., rights: _Optional[_Iterable[str]] = ..., topics: _Optional[_Iterable[str]] = ..., expires_at: _Optional[int] = ...) -> None: ...

class RedeemRequest(_message.Message):
    __slots__ = ("redemptions",)
    REDEMPTIONS_FIELD_NUMBER: _ClassVar[int]
    redemptions: _containers.RepeatedCompositeFieldContainer[Redemption]
    def __init__(self, redemptions: _Optional[_Iterable[_Union[Redemption, _Mapping[str, object]]]] = ...) -> None: ...

class Redemption(_message.Message):
    __slots__ = ("jti", "connection_id", "node_id", "session_id", "principal_id", "user_id", "device_id", "token_expires_at", "token_issued_at")
    JTI_FIELD_NUMBER: _ClassVar[int]
    CONNECTION_ID_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    PRINCIPAL_ID_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    DEVICE_ID_FIELD_NUMBER: _ClassVar[int]
    TOKEN_EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    TOKEN_ISSUED_AT_FIELD_NUMBER: _ClassVar[int]
    jti: str
    connection_id: str
    node_id: str
    session_id: str
    principal_id: str
    user_id: str
    device_id: str
    token_expires_at: int
    token_issued_at: int
    def __init__(self, jti: _Optional[str] = ..., connection_id: _Optional[str] = ..., node_id: _Optional[str] = ..., session_id: _Optional[str] = ..., principal_id: _Optional[str] = ..., user_id: _Optional[str] = ..., device_id: _Optional[str] = ..., token_expires_at: _Optional[int] = ..., token_issued_at: _Optional[int] = ...) -> None: ...

class RedeemResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedScalarFieldContainer[RedeemResult]
    def __init__(self, results: _Optional[_Iterable[_Union[RedeemResult, str, int]]] = ...) -> None: ...

class CompatResponse(_message.Message):
    __slots__ = ("min_build_id", "protocol_min", "protocol_max", "schema_min", "schema_max", "version")
    MIN_BUILD_ID_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_MIN_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_MAX_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_MIN_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_MAX_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    min_build_id: str
    protocol_min: int
    protocol_max: int
    schema_min: int
    schema_max: int
    version: str
    def __init__(self, min_build_id: _Optional[str] = ..., protocol_min: _Optional[int] = ..., protocol_max: _Optional[int] = ..., schema_min: _Optional[int] = ..., schema_max: _Optional[int] = ..., version: _Optional[str] = ...) -> None: ...

class CreateOrgRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class ListOrgsResponse(_message.Message):
    __slots__ = ("orgs",)
    ORGS_FIELD_NUMBER: _ClassVar[int]
    orgs: _containers.RepeatedCompositeFieldContainer[OrgMembership]
    def __init__(self, orgs: _Optional[_Iterable[_Union[OrgMembership, _Mapping[str, object]]]] = ...) -> None: ...

class OrgMember(_message.Message):
    __slots__ = ("user_id", "login", "role", "joined_at")
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    LOGIN_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    JOINED_AT_FIELD_NUMBER: _ClassVar[int]
    user_id: str
    login: str
    role: str
    joined_at: int
    def __init__(self, user_id: _Optional[str] = ..., login: _Optional[str] = ..., role: _Optional[str] = ..., joined_at: _Optional[int] = ...) -> None: ...

class ListMembersResponse(_message.Message):
    __slots__ = ("members",)
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    members: _containers.RepeatedCompositeFieldContainer[OrgMember]
    def __init__(self, members: _Optional[_Iterable[_Union[OrgMember, _Mapping[str, object]]]] = ...) -> None: ...

class PutMemberRequest(_message.Message):
    __slots__ = ("user_id", "role")
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    user_id: str
    role: str
    def __init__(self, user_id: _Optional[str] = ..., role: _Optional[str] = ...) -> None: ...

class RemoveMemberResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class EvaluatePolicyRequest(_message.Message):
    __slots__ = ("org_id", "action")
    ORG_ID_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    org_id: str
    action: str
    def __init__(self, org_id: _Optional[str] = ..., action: _Optional[str] = ...) -> None: ...

class EvaluatePolicyResponse(_message.Message):
    __slots__ = ("allowed", "role")
    ALLOWED_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    allowed: bool
    role: str
    def __init__(self, allowed: _Optional[bool] = ..., role: _Optional[str] = ...) -> None: ...

class NodeAuditEvent(_message.Message):
    __slots__ = ("action", "reason", "cause", "noted_at", "connection_id", "request_id", "user_id", "session_id", "device_id", "principal_kind", "principal_id", "jti", "topic", "positions", "topic_count", "limit", "limit_value")
    ACTION_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    NOTED_AT_FIELD_NUMBER: _ClassVar[int]
    CONNECTION_ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    DEVICE_ID_FIELD_NUMBER: _ClassVar[int]
    PRINCIPAL_KIND_FIELD_NUMBER: _ClassVar[int]
    PRINCIPAL_ID_FIELD_NUMBER: _ClassVar[int]
    JTI_FIELD_NUMBER: _ClassVar[int]
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    POSITIONS_FIELD_NUMBER: _ClassVar[int]
    TOPIC_COUNT_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    LIMIT_VALUE_FIELD_NUMBER: _ClassVar[int]
    action: NodeAuditAction
    reason: str
    cause: str
    noted_at: int
    connection_id: str
    request_id: str
    user_id: str
    session_id: str
    device_id: str
    principal_kind: PrincipalKind
    principal_id: str
    jti: str
    topic: str
    positions: _containers.RepeatedCompositeFieldContainer[TopicPosition]
    topic_count: int
    limit: str
    limit_value: str
    def __init__(self, action: _Optional[_Union[NodeAuditAction, str, int]] = ..., reason: _Optional[str] = ..., cause: _Optional[str] = ..., noted_at: _Optional[int] = ..., connection_id: _Optional[str] = ..., request_id: _Optional[str] = ..., user_id: _Optional[str] = ..., session_id: _Optional[str] = ..., device_id: _Optional[str] = ..., principal_kind: _Optional[_Union[PrincipalKind, str, int]] = ..., principal_id: _Optional[str] = ..., jti: _Optional[str] = ..., topic: _Optional[str] = ..., positions: _Optional[_Iterable[_Union[TopicPosition, _Mapping[str, object]]]] = ..., topic_count: _Optional[int] = ..., limit: _Optional[str] = ..., limit_value: _Optional[str] = ...) -> None: ...

class TopicPosition(_message.Message):
    __slots__ = ("topic", "seq")
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    topic: str
    seq: int
    def __init__(self, topic: _Optional[str] = ..., seq: _Optional[int] = ...) -> None: ...

class UnwrittenAudit(_message.Message):
    __slots__ = ("action", "reason", "gap", "count", "since")
    ACTION_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    GAP_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    action: NodeAuditAction
    reason: str
    gap: AuditGap
    count: int
    since: int
    def __init__(self, action: _Optional[_Union[NodeAuditAction, str, int]] = ..., reason: _Optional[str] = ..., gap: _Optional[_Union[AuditGap, str, int]] = ..., count: _Optional[int] = ..., since: _Optional[int] = ...) -> None: ...

class AppendAuditRequest(_message.Message):
    __slots__ = ("node_id", "batch_id", "events", "unwritten")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    BATCH_ID_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    UNWRITTEN_FIELD_NUMBER: _ClassVar[int]
    node_id: str
    batch_id: str
    events: _containers.RepeatedCompositeFieldContainer[NodeAuditEvent]
    unwritten: _containers.RepeatedCompositeFieldContainer[UnwrittenAudit]
    def __init__(self, node_id: _Optional[str] = ..., batch_id: _Optional[str] = ..., events: _Optional[_Iterable[_Union[NodeAuditEvent, _Mapping[str, object]]]] = ..., unwritten: _Optional[_Iterable[_Union[UnwrittenAudit, _Mapping[str, object]]]] = ...) -> None: ...

class AppendAuditResponse(_message.Message):
    __slots__ = ("written",)
    WRITTEN_FIELD_NUMBER: _ClassVar[int]
    written: int
    def __init__(self, written: _Optional[int] = ...) -> None: ...

class AuditRow(_message.Message):
    __slots__ = ("audit_id", "occurred_at", "action", "outcome", "reason", "request_id", "principal_kind", "principal_id", "user_id", "session_id", "device_id", "key_id", "org_id", "jti", "connection_id", "node_id", "detail")
    AUDIT_ID_FIELD_NUMBER: _ClassVar[int]
    OCCURRED_AT_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    PRINCIPAL_KIND_FIELD_NUMBER: _ClassVar[int]
    PRINCIPAL_ID_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    DEVICE_ID_FIELD_NUMBER: _ClassVar[int]
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    ORG_ID_FIELD_NUMBER: _ClassVar[int]
    JTI_FIELD_NUMBER: _ClassVar[int]
    CONNECTION_ID_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    audit_id: int
    occurred_at: int
    action: str
    outcome: str
    reason: str
    request_id: str
    principal_kind: str
    principal_id: str
    user_id: str
    session_id: str
    device_id: str
    key_id: str
    org_id: str
    jti: str
    connection_id: str
    node_id: str
    detail: _struct_pb2.Struct
    def __init__(self, audit_id: _Optional[int] = ..., occurred_at: _Optional[int] = ..., action: _Optional[str] = ..., outcome: _Optional[str] = ..., reason: _Optional[str] = ..., request_id: _Optional[str] = ..., principal_kind: _Optional[str] = ..., principal_id: _Optional[str] = ..., user_id: _Optional[str] = ..., session_id: _Optional[str] = ..., device_id: _Optional[str] = ..., key_id: _Optional[str] = ..., org_id: _Optional[str] = ..., jti: _Optional[str] = ..., connection_id: _Optional[str] = ..., node_id: _Optional[str] = ..., detail: _Optional[_Union[_struct_pb2.Struct, _Mapping[str, object]]] = ...) -> None: ...

class ListAuditResponse(_message.Message):
    __slots__ = ("rows", "next_after", "has_more")
    ROWS_FIELD_NUMBER: _ClassVar[int]
    NEXT_AFTER_FIELD_NUMBER: _ClassVar[int]
    HAS_MORE_FIELD_NUMBER: _ClassVar[int]
    rows: _containers.RepeatedCompositeFieldContainer[AuditRow]
    next_after: int
    has_more: bool
    def __init__(self, rows: _Optional[_Iterable[_Union[AuditRow, _Mapping[str, object]]]] = ..., next_after: _Optional[int] = ..., has_more: _Optional[bool] = ...) -> None: ...
