-- Roles, schemas and the closed door between the planes. Run by a superuser in the database that
-- Khala uses (once per cluster and database; again at any time: it changes nothing then).
-- Passwords are set separately: ALTER ROLE khala_control PASSWORD '...'.
--
--   role                  owns            may use (details are granted by the migrations)
--   khala_control_owner   schema control  migrates control
--   khala_runtime_owner   schema runtime  migrates runtime
--   khala_control         -               schema control
--   khala_runtime         -               schema runtime
--   khala_reader          -               schema runtime, read only
--
-- With two databases run it in both and drop the other plane's schema, or leave it empty.

DO $$
DECLARE
    role_name text;
BEGIN
    FOREACH role_name IN ARRAY ARRAY[
        'khala_control_owner', 'khala_runtime_owner', 'khala_control', 'khala_runtime', 'khala_reader'
    ] LOOP
        BEGIN
            EXECUTE format('CREATE ROLE %I', role_name);
        EXCEPTION WHEN duplicate_object OR unique_violation THEN
            NULL; -- it is there, or another bootstrap made it just now
        END;
        EXECUTE format(
            'ALTER ROLE %I LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS NOINHERIT',
            role_name
        );
        EXECUTE format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), role_name);
    END LOOP;
    -- Takes CONNECT and TEMPORARY from everybody else.
    EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());
END
$$;

REVOKE ALL ON SCHEMA public FROM PUBLIC;

CREATE SCHEMA IF NOT EXISTS control AUTHORIZATION khala_control_owner;
CREATE SCHEMA IF NOT EXISTS runtime AUTHORIZATION khala_runtime_owner;
REVOKE ALL ON SCHEMA control, runtime FROM PUBLIC;
GRANT USAGE ON SCHEMA control TO khala_control;
GRANT USAGE ON SCHEMA runtime TO khala_runtime, khala_reader;

-- PostgreSQL lets everybody execute a new function. Ours are granted one by one: append_v1 runs with
-- its owner's rights.
ALTER DEFAULT PRIVILEGES FOR ROLE khala_control_owner REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
ALTER DEFAULT PRIVILEGES FOR ROLE khala_runtime_owner REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
