CREATE TABLE firebox_languages (
    id TEXT NOT NULL,
    name TEXT NOT NULL,
    version TEXT NOT NULL,
    image TEXT NOT NULL,
    created_at DATETIME NOT NULL,
    modified_at DATETIME NOT NULL,
    CONSTRAINT pk_firebox_languages PRIMARY KEY (id),
    CONSTRAINT uq_firebox_languages_name UNIQUE (name, version)
);
CREATE TABLE firebox_leases (
    subject TEXT NOT NULL,
    lease_id TEXT NOT NULL,
    ends_at_ms BIGINT NOT NULL,
    CONSTRAINT pk_firebox_leases PRIMARY KEY (subject, lease_id)
);
CREATE INDEX ix_firebox_leases_ends_at_ms ON firebox_leases (ends_at_ms);
CREATE TABLE firebox_taken_over (
    name TEXT NOT NULL,
    CONSTRAINT pk_firebox_taken_over PRIMARY KEY (name)
);
CREATE TABLE firebox_usage (
    subject TEXT NOT NULL,
    name TEXT NOT NULL,
    window_s BIGINT NOT NULL,
    ends_at_s BIGINT NOT NULL,
    amount BIGINT NOT NULL,
    CONSTRAINT pk_firebox_usage PRIMARY KEY (subject, name, window_s, ends_at_s)
);
CREATE INDEX ix_firebox_usage_ends_at_s ON firebox_usage (ends_at_s);
CREATE TABLE firebox_users (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    uuid TEXT NOT NULL,
    name TEXT NOT NULL,
    role TEXT NOT NULL,
    token_sha256 BLOB NOT NULL,
    token_hint TEXT NOT NULL,
    disabled_at DATETIME,
    runs_per_minute BIGINT,
    concurrent_runs BIGINT,
    cpu_seconds_per_day BIGINT,
    created_at DATETIME NOT NULL,
    modified_at DATETIME NOT NULL,
    CONSTRAINT uq_firebox_users_uuid UNIQUE (uuid),
    CONSTRAINT uq_firebox_users_name UNIQUE (name),
    CONSTRAINT uq_firebox_users_token_sha256 UNIQUE (token_sha256)
);
CREATE TABLE shared_codes (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    code TEXT NOT NULL,
    output TEXT,
    error TEXT,
    created_at DATETIME DEFAULT CURRENT_TIMESTAMP NOT NULL,
    language TEXT DEFAULT 'go' NOT NULL
);
CREATE INDEX ix_shared_codes_created_at ON shared_codes (created_at);
CREATE TABLE firebox_schema (
    version_num VARCHAR(32) NOT NULL,
    CONSTRAINT firebox_schema_pkc PRIMARY KEY (version_num)
);
