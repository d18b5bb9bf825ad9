"""The database, its roles and their passwords, made by the superuser of an embedded cluster.

Does for ``khala up`` and the tests what a database administrator does for a deployment: runs
``khala_service/sql/bootstrap_roles.sql`` (roles, schemas, grants) and gives every role the password
from its own 0600 file. Repeating it changes nothing. The superuser is used for this alone;
migrations run as the owner roles, services as the service roles.
"""

from __future__ import annotations

import importlib.resources
import subprocess
from typing import TYPE_CHECKING, Final

from khala.adapters.embedded_postgres_cluster import (
    SUPERUSER,
    secret_path,
)
from khala.adapters.embedded_postgres_directory import read_or_make_secret
from khala.adapters.embedded_postgres_errors import EmbeddedPostgresFailed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from khala.adapters.embedded_postgres import PostgresServer

DATABASE: Final = "khala"
ROLES: Final = (
    "khala_control_owner",
    "khala_runtime_owner",
    "khala_control",
    "khala_runtime",
    "khala_reader",
)
PSQL_TIMEOUT_S: Final = 60.0


def bootstrap_roles(server: PostgresServer, *, database: str = DATABASE) -> Mapping[str, str]:
    """Make the database and its roles if needed; return each role's connection URL.

    Raises:
        EmbeddedPostgresFailed: The SQL failed; the message is PostgreSQL's first error.
    """
    bootstrap = importlib.resources.files("khala_service") / "sql" / "bootstrap_roles.sql"
    _run_psql(
        server,
        "postgres",
        f"SELECT 'CREATE DATABASE {_quote_name(database)}' WHERE NOT EXISTS "  # noqa: S608 - quoted
        f"(SELECT FROM pg_database WHERE datname = {_quote_text(database)}) \\gexec\n",
    )
    passwords = {role: read_or_make_secret(secret_path(server.cluster.data_dir, role)) for role in ROLES}
    statements = [
        # A failing ALTER ROLE would otherwise put its own text, password included, into the log.
        "SET log_min_error_statement = panic;",
        *(
            f"ALTER ROLE {_quote_name(role)} LOGIN PASSWORD {_quote_text(password)};"
            for role, password in passwords.items()
        ),
    ]
    _run_psql(server, database, bootstrap.read_text(encoding="utf-8"))
    _run_psql(server, database, "\n".join(statements))
    return {
        role: server.dsn(user=role, password=password, database=database)
        for role, password in passwords.items()
    }


def _run_psql(server: PostgresServer, database: str, script: str) -> None:
    """Run a script as superuser, stopping at its first error; secrets travel by pipe only."""
    cluster = server.cluster
    options = cluster.run_options()
    options["env"] = {**options["env"], "PGPASSWORD": cluster.password}
    del options["stdin"]
    done = subprocess.run(
        cluster.launch.command(
            "psql",
            "--no-psqlrc",
            "--no-password",
            "--quiet",
            "--set=ON_ERROR_STOP=1",
            f"--host={server.host}",
            f"--port={server.port}",
            f"--username={SUPERUSER}",
            f"--dbname={database}",
        ),
        **options,
        input=script.encode(),
        capture_output=True,
        timeout=PSQL_TIMEOUT_S,
        check=False,
    )
    if done.returncode != 0:
        errors = [line for line in done.stderr.decode(errors="replace").splitlines() if "ERROR:" in line]
        detail = errors[0].partition("ERROR:")[2].strip() if errors else "psql could not connect"
        raise EmbeddedPostgresFailed(f"the database roles could not be made: {detail}")


def _quote_name(name: str) -> str:
    return '"{}"'.format(name.replace('"', '""'))


def _quote_text(text: str) -> str:
    return "'{}'".format(text.replace("'", "''"))
