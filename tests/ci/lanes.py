"""The lanes: names, order, budgets. `all` runs them in this order, quick ones first.

Budgets are wall time on two quiet cores; they add up to what the developers' guide promises.
"""

from typing import Final

from tests.ci import (
    boundaries,
    compile_checks,
    dependency_checks,
    docs_adrs,
    docs_contents,
    docs_generated,
    docs_links,
    docs_metrics,
    docs_sign_in,
    invariants,
    lint_checks,
    release,
    web_build,
)
from tests.ci.checks import Check
from tests.ci.proto_checks import PROTO_CHECKS
from tests.ci.runner import Lane

README_TEST: Final = "tests/e2e/test_readme.py"
OWNERSHIP_TEST: Final = "tests/security/test_table_ownership.py"
# Run beside the rest of their lane, in a second process: they wait for real clocks most of the time.
WAITING_INTEGRATION: Final = (
    "tests/integration/drivers",
    "tests/integration/khala_service",
    "tests/integration/control",
    "tests/replay",
)
# The same: each looks at one system or command at a time, and none of them measures how long it takes.
PATIENT_E2E: Final = (
    "cli_commands", "cli_login", "cli_reset", "client_snippets", "code_links", "first_run", "http_api",
    "http_refusals", "logs", "metrics", "one_origin", "openapi", "pre_commit", "recipes", "secrets", "slim_client",
    "tls", "verify",
)  # fmt: skip
# Rates and delays of many clients, which need both cores.
MEASURING_E2E: Final = ("faulty_nodes", "revocation", "revocation_lost", "seam")

LANES: Final = (
    Lane(
        "docs",
        "links, decision records, generated parts, glossary, dependencies, metrics, alerts, README's figure",
        budget_s=20,
        checks=(
            Check("links", docs_links.find_dead_links),
            Check("paths", docs_links.find_missing_paths),
            Check("lanes", docs_links.find_unknown_lanes),
            Check("architecture", docs_contents.find_architecture_problems),
            Check("glossary", docs_contents.find_glossary_problems),
            Check("dependencies", docs_contents.find_dependency_problems),
            Check("version", docs_contents.find_version_problems),
            Check("figure", docs_contents.find_figure_problems),
            Check("authority", docs_sign_in.find_authority_problems),
            Check("metrics", docs_metrics.find_metric_table_problems),
            Check("alerts", docs_metrics.find_alert_problems),
            Check("adr", docs_adrs.find_adr_problems),
            Check("harvest", docs_adrs.find_harvest_problems),
            Check("replay", docs_adrs.find_replay_problems),
            Check("generated", docs_generated.check_generated_parts),
            Check("code pages", docs_generated.check_code_pages),
        ),
    ),
    Lane("proto", "the contracts: lint, breaking changes, generated code, package", 60, PROTO_CHECKS),
    Lane(
        "lint",
        "format, lint, cancellation safety, import direction",
        budget_s=60,
        checks=(
            Check("format", lint_checks.find_format_errors),
            Check("ruff", lint_checks.find_lint_errors),
            Check("async", lint_checks.find_async_errors),
            Check("imports", lint_checks.find_import_violations),
        ),
    ),
    Lane(
        "boundaries",
        "top level, banned words and names, bounded channels, who may use asyncio, needs, tables",
        budget_s=40,
        checks=(
            Check("top-level", boundaries.find_top_level_strangers),
            Check("names", boundaries.find_vague_modules),
            Check("live-lanes", boundaries.find_other_live_lanes),
            Check("headers", boundaries.find_foreign_headers),
            Check("channels", boundaries.find_unbounded_channels),
            Check("asyncio", boundaries.find_asyncio_outside_adapters),
            Check("nondeterminism", boundaries.find_hidden_nondeterminism),
            Check("dependencies", dependency_checks.find_dependency_mismatches),
        ),
        targets=(OWNERSHIP_TEST,),
    ),
    Lane(
        "compile",
        "every file parses, every module imports, types are right",
        budget_s=100,
        checks=(
            Check("syntax", compile_checks.find_syntax_errors),
            Check("imports", compile_checks.find_import_errors),
            Check("types", compile_checks.find_type_errors),
        ),
    ),
    Lane(
        "unit",
        "pure code, actors on virtual time, properties, suites shared by fakes and real things",
        budget_s=300,
        targets=("tests/unit", "tests/actors", "tests/properties", "tests/contract", "tests/fuzz"),
    ),
    Lane(
        "integration",
        "real PostgreSQL, real clock; projectors and replay among it",
        budget_s=720,
        targets=("tests/integration", "tests/projectors", "tests/replay"),
        beside=WAITING_INTEGRATION,
    ),
    Lane(
        "e2e",
        "processes and real sockets",
        600,
        targets=("tests/e2e",),
        ignored=(README_TEST,),
        beside=tuple(f"tests/e2e/test_{name}.py" for name in PATIENT_E2E),
        alone=tuple(f"tests/e2e/test_{name}.py" for name in MEASURING_E2E),
    ),
    Lane(
        "security",
        "every refusal, as each principal and database role",
        budget_s=240,
        targets=("tests/security",),
        ignored=(OWNERSHIP_TEST,),
    ),
    Lane(
        "web",
        "the TypeScript client and the live page: types, their tests in Node, the committed build",
        budget_s=90,
        checks=(
            Check("types", web_build.find_type_errors),
            Check("build", web_build.find_build_differences),
            Check("weight", web_build.find_heavy_first_load),
        ),
        targets=("tests/web",),
    ),
    Lane("browser", "the live page in a real Chromium, on whole systems", 150, targets=("tests/browser",)),
    Lane(
        "sim",
        "whole systems in virtual time, decided by seeds; three defects of the day",
        budget_s=480,
        targets=("tests/sim",),
    ),
    Lane(
        "drills",
        "processes killed under load, in short; the checker's verdict on their clients",
        budget_s=360,
        targets=("tests/drills",),
    ),
    Lane(
        "mutants",
        "a defect for each promise, killed by the test that it names",
        budget_s=330,
        targets=("tests/mutants",),
    ),
    Lane("readme", "README's commands in a fresh environment", budget_s=240, targets=(README_TEST,)),
    Lane(
        "invariants",
        "each numbered invariant is pinned by a test that ran",
        budget_s=10,
        checks=(
            Check("mapped", invariants.find_invariant_problems),
            Check("mentions", invariants.find_unknown_mentions),
        ),
    ),
    Lane(
        "release",
        "wheels and kept fixtures, before a version is published",
        budget_s=120,
        checks=(
            Check("history", release.find_missing_history),
            Check("wheel", release.find_wheel_problems),
            Check("client-wheel", release.find_client_wheel_problems),
        ),
        is_in_all=False,
    ),
)
LANE_NAMES: Final = tuple(lane.name for lane in LANES)
