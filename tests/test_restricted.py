"""`outbound_federation_restricted_to`: who is not in the list speaks to other servers through who is, of either kind."""

import pytest
import yaml

from lib import layouts
from lib.client import MatrixError, has_event, quote

# The worker is in the list; main, which also sends what happens in rooms, is not.
RESTRICTED = {"outbound_federation_restricted_to": ["generic1"]}


@pytest.fixture(params=[("plexus", "plexus", "tcp"), ("plexus", "plexus", "unix"), ("plexus", "synapse", "tcp"),
                        ("synapse", "plexus", "tcp")],
                ids=["ours through ours", "ours through ours by a unix socket", "ours through theirs", "theirs through ours"])
def restricted(request, make_cluster):
    main, worker, way = request.param
    cluster = make_cluster(layouts.PAIR, main=main, flavours={"generic1": worker}, config=RESTRICTED, federates=True,
                           start=False)
    if way == "unix":
        replication_by_unix_socket(cluster)
    return cluster.start()


def replication_by_unix_socket(cluster) -> None:
    """The worker's replication listener becomes a socket in the file system."""
    path = str(cluster.folder / "generic1.sock")
    shared, own = cluster.folder / "homeserver.yaml", cluster.folder / "generic1.yaml"
    conf = yaml.safe_load(shared.read_text())
    conf["instance_map"]["generic1"] = {"path": path}
    shared.write_text(yaml.safe_dump(conf))
    conf = yaml.safe_load(own.read_text())
    conf["worker_listeners"][0]["resources"][0]["names"].remove("replication")
    conf["worker_listeners"].append({"type": "http", "path": path, "resources": [{"names": ["replication"]}]})
    own.write_text(yaml.safe_dump(conf))


def test_who_may_not_speak_has_another_speak(restricted, make_cluster):
    far = make_cluster(main="synapse", federates=True)
    bob, alice = far.user("bob"), restricted.user("alice")
    bob.put(f"/profile/{quote(bob.user_id)}/displayname", {"displayname": "Bob from afar"})
    assert alice.get(f"/profile/{quote(bob.user_id)}")["displayname"] == "Bob from afar"
    room = bob.create_room(preset="public_chat")
    since = bob.sync()["next_batch"]
    alice.join(room, via=far.server_name)
    bob.sync_until(has_event(room, alice.send(room, "sent by main, carried by the worker")), since)
    # What the other server says no to is told as if it had been asked directly.
    with pytest.raises(MatrixError) as refused:
        alice.join(f"#nothing:{far.server_name}")
    assert (refused.value.status, refused.value.errcode) == (404, "M_NOT_FOUND")
    # It really needs the worker: without it main has no way out.
    restricted.kill("generic1")
    with pytest.raises(MatrixError) as failed:
        alice.get(f"/profile/{quote(f'@nobody:{far.server_name}')}")
    assert failed.value.status >= 500
