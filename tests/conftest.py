"""Fixtures: one PostgreSQL a run, a database and a cluster a test, or a file."""

import contextlib
import itertools
import pathlib
import shutil
import tempfile

import pytest

from lib import layouts
from lib.cluster import Cluster, schema_template
from lib.services import Postgres

_number = itertools.count(1)


def pytest_addoption(parser):
    parser.addoption("--flavour", choices=["plexus", "synapse"], default="plexus",
                     help="who plays the processes under test; `synapse` proves the tests themselves")
    parser.addoption("--update-golden", action="store_true", help="take what is rendered now for right (test_render.py)")
    parser.addoption("--keep", action="store_true", help="leave logs and configuration of every cluster behind")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    if report.when == "call" and report.failed:
        for cluster in getattr(item, "_clusters", []) + getattr(item.parent, "_clusters", []):
            report.sections.append(("logs of the cluster", cluster.logs()))


@pytest.fixture(scope="session")
def flavour(request) -> str:
    return request.config.getoption("--flavour")


@pytest.fixture(scope="session")
def folder(request):
    path = pathlib.Path(tempfile.mkdtemp(prefix="plexus-tests-"))
    # PostgreSQL runs as another user and must be able to reach its part.
    path.chmod(0o755)
    yield path
    if request.config.getoption("--keep"):
        print(f"\nkept: {path}")
    else:
        shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres(folder):
    server = Postgres(folder / "postgres")
    server.start()
    yield server
    server.stop()


@contextlib.contextmanager
def maker(request, folder, postgres, flavour):
    made = request.node._clusters = []

    def make(layout=layouts.MONOLITH, flavours=None, config=None, main=None, empty=False, start=True, federates=False,
             postgres_port=None):
        if flavour == "synapse":
            flavours, main_flavour = None, "synapse"
        else:
            main_flavour = main or flavour
        template = None if empty else schema_template(postgres, folder, main_flavour)
        name = f"c{next(_number)}"
        cluster = Cluster(folder / name, postgres, postgres.new_database(template), layout, main_flavour,
                          flavours, config, federates, postgres_port)
        made.append(cluster)
        return cluster.start() if start else cluster

    yield make
    for cluster in made:
        if request.config.getoption("--keep"):
            cluster.stop()
        else:
            cluster.remove()


@pytest.fixture
def make_cluster(request, folder, postgres, flavour):
    """make_cluster(layout, flavours={...}, config={...}): a started cluster with a fresh database.

    Flavours are those of this run unless given; a run with `--flavour synapse`
    plays everything by Synapse, whatever a test asks for.
    """
    with maker(request, folder, postgres, flavour) as make:
        yield make


@pytest.fixture(scope="module")
def make_lasting_cluster(request, folder, postgres, flavour):
    """As make_cluster; for all tests of a file, which have to be content with what others left there."""
    with maker(request, folder, postgres, flavour) as make:
        yield make


@pytest.fixture(params=["monolith", "workers"])
def cluster(request, make_cluster):
    """A cluster of each shape in turn."""
    return make_cluster(layouts.ALL[request.param])
