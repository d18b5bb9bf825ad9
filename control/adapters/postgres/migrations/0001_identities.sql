-- Who exists: users, the outside identities they are derived from, orgs, memberships, devices.
-- No column of this schema holds a password; identities are asserted by an issuer.

CREATE TABLE control.users (
    user_id text PRIMARY KEY CHECK (user_id ~ '^usr_[0-7][0-9a-hjkmnp-tv-z]{25}$'),
    -- A label for people. Identity is (issuer, subject) below.
    login text NOT NULL CHECK (octet_length(login) BETWEEN 1 AND 256),
    created_at timestamptz NOT NULL
);

CREATE TABLE control.identities (
    -- An OIDC issuer, the development issuer, or 'org:<org_id>' for an application's own users.
    issuer text NOT NULL CHECK (octet_length(issuer) BETWEEN 1 AND 256),
    subject text NOT NULL CHECK (octet_length(subject) BETWEEN 1 AND 256),
    user_id text NOT NULL REFERENCES control.users,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (issuer, subject)
);
CREATE INDEX identities_of_user ON control.identities (user_id);

CREATE TABLE control.orgs (
    org_id text PRIMARY KEY CHECK (org_id ~ '^org_[0-7][0-9a-hjkmnp-tv-z]{25}$'),
    name text NOT NULL CHECK (octet_length(name) BETWEEN 1 AND 256),
    -- Set for the one org that every person gets at the first sign-in.
    personal_user_id text UNIQUE REFERENCES control.users,
    created_at timestamptz NOT NULL
);

CREATE TABLE control.memberships (
    org_id text NOT NULL REFERENCES control.orgs,
    user_id text NOT NULL REFERENCES control.users,
    role text NOT NULL CHECK (role IN ('owner', 'admin', 'member')),
    created_at timestamptz NOT NULL,
    PRIMARY KEY (org_id, user_id)
);
CREATE INDEX memberships_of_user ON control.memberships (user_id);

CREATE TABLE control.devices (
    user_id text NOT NULL REFERENCES control.users,
    device_id text NOT NULL CHECK (device_id ~ '^dev_[0-9a-z]{8,64}$'),
    -- Devices name themselves, so a second user may present the same id. The topic
    -- device:{device_id}:inbox belongs to the first person who did, for ever.
    owns_inbox boolean NOT NULL,
    first_seen_at timestamptz NOT NULL,
    last_seen_at timestamptz NOT NULL,
    PRIMARY KEY (user_id, device_id)
);
CREATE UNIQUE INDEX devices_one_inbox_owner ON control.devices (device_id) WHERE owns_inbox;

GRANT SELECT, INSERT ON control.users, control.identities, control.orgs, control.memberships
    TO khala_control;
GRANT SELECT, INSERT, UPDATE (last_seen_at) ON control.devices TO khala_control;
