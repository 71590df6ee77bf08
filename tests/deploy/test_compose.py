"""The compose files: they follow the official schema, hold no secret, and open nothing that they need not."""

import re
from typing import Any

import pytest
from check_jsonschema.builtin_schemas import get_builtin_schema
from jsonschema.validators import validator_for

from tests.deploy.files import BASE, NODE, NODE_S3, OURS, OVERLAYS, REPOSITORY, S3, SET, Unset, compose, filled
from training.tasks import STOP_SECONDS

FILES = sorted(path.name for path in REPOSITORY.glob("docker-compose*.yml"))
LASTING = [(BASE, name) for name in ("postgres", "redis", "web", "worker", "gpu-worker", "cpu-worker", "beat")] + [
    (NODE, "gpu-worker")
]


def faults(document: dict[str, Any]) -> list[str]:
    """What the schema of the compose specification says against it."""
    schema = get_builtin_schema("vendor.compose-spec")
    return [error.message for error in validator_for(schema)(schema).iter_errors(document)]


def services(name: str) -> dict[str, Any]:
    found = filled(compose(name), SET)["services"]
    assert isinstance(found, dict)
    return found


def seconds(text: str) -> int:
    return int(text.removesuffix("s"))


def test_all_files_are_known_here() -> None:
    assert sorted([BASE, NODE, NODE_S3, *OVERLAYS]) == FILES


@pytest.mark.parametrize("name", FILES)
def test_each_file_follows_the_official_schema(name: str) -> None:
    assert faults(compose(name)) == []
    assert faults(filled(compose(name), SET)) == []


def test_the_schema_finds_faults() -> None:
    broken = compose(BASE)
    broken["services"]["web"]["prots"] = broken["services"]["web"].pop("ports")
    broken["services"]["redis"]["restart"] = ["always"]
    told = " ".join(faults(broken))
    assert "'prots' was unexpected" in told and "['always'] is not of type 'string'" in told


def test_the_parts_are_there_and_come_from_three_images() -> None:
    parts = services(BASE)
    assert set(parts) == {"postgres", "redis", *OURS}
    targets = {name: parts[name]["build"]["target"] for name in OURS}
    assert targets == {
        "prepare": "web",
        "web": "web",
        "beat": "web",
        "worker": "worker-cpu",
        "gpu-worker": "worker-cpu",
        "cpu-worker": "worker-cpu",
    }
    assert services(OVERLAYS[0])["gpu-worker"]["build"]["target"] == "worker-cuda"
    assert services(NODE)["gpu-worker"]["build"]["target"] == "worker-cuda"


@pytest.mark.parametrize("name", [BASE, NODE, *OVERLAYS])
def test_an_image_of_ours_is_built_here_and_never_fetched_by_its_name(name: str) -> None:
    """Anybody could publish an image of that name."""
    base = services(BASE)
    for part, service in services(name).items():
        if "build" in service:
            assert service["image"] == f"plackett-{service['build']['target']}"
            assert (base.get(part, {}) | service)["pull_policy"] == "build"


@pytest.mark.parametrize("name", OVERLAYS)
def test_an_overlay_changes_parts_that_exist(name: str) -> None:
    for kind in ("services", "volumes"):
        assert set(compose(name).get(kind, {})) <= set(compose(BASE)[kind])


def test_nothing_is_published_but_the_web_and_that_to_this_machine_alone() -> None:
    published = {part: service["ports"] for part, service in services(BASE).items() if "ports" in service}
    assert published == {"web": ["127.0.0.1:8000:8000"]}
    assert not any("ports" in service or "network_mode" in service for service in services(NODE).values())


def test_a_cluster_names_the_address_that_it_opens() -> None:
    ports = [port for service in services("docker-compose.cluster.yml").values() for port in service["ports"]]
    assert ports == ["10.0.0.1:5432:5432", "10.0.0.1:6379:6379"]
    with pytest.raises(Unset, match="PLACKETT_PRIVATE_ADDRESS"):
        filled(compose("docker-compose.cluster.yml"), {"PLACKETT_SHARED": "/mnt"})


def test_a_bucket_is_told_to_all_that_read_or_write_there() -> None:
    first, further = services(S3), services(NODE_S3)
    assert set(first) == set(OURS) - {"beat"} and set(further) <= set(services(NODE))
    told = [one["environment"] for one in (*first.values(), *further.values())]
    assert all(one == told[0] for one in told) and told[0]["PLACKETT_ARTIFACTS"] == "s3://bucket/plackett"
    with pytest.raises(Unset, match="PLACKETT_ARTIFACTS"):
        filled(compose(S3), {})


@pytest.mark.parametrize("name", [BASE, NODE, S3, NODE_S3])
def test_secrets_come_from_files_and_each_is_granted_where_it_is_read(name: str) -> None:
    known = compose(name)["secrets"]
    assert all(set(source) == {"file"} for source in known.values())
    used = set()
    for part, service in services(name).items():
        for variable, value in service.get("environment", {}).items():
            if re.search("PASSWORD|SECRET|TOKEN|KEY", variable):
                assert variable.endswith("_FILE"), f"{part}: {variable}"
            assert not re.search(r"://[^@/]*:[^@]*@", str(value)), f"{part}: {variable} holds a password"
        read = set(re.findall(r"/run/secrets/(\w+)", str(service)))
        granted = set(service.get("secrets", ()))
        assert read <= granted <= set(known), part
        used |= granted
    assert used == set(known)


def test_every_setting_that_is_given_is_documented() -> None:
    settings = (REPOSITORY / "docs" / "settings.md").read_text()
    given = {
        key for name in (BASE, NODE, S3) for part in OURS for key in services(name).get(part, {}).get("environment", {})
    }
    assert len(given) > 8
    assert sorted(key for key in given if f"`{key}`" not in settings) == []


def test_every_variable_of_the_files_is_explained() -> None:
    asked = set(re.findall(r"\$\{([A-Z0-9_]+)", "".join((REPOSITORY / name).read_text() for name in FILES)))
    guide = (REPOSITORY / "docs" / "deploy.md").read_text()
    assert asked and sorted(name for name in asked if f"`{name}" not in guide) == []


@pytest.mark.parametrize(("name", "part"), LASTING)
def test_what_lasts_is_watched_started_again_and_given_time_to_end(name: str, part: str) -> None:
    service = services(name)[part]
    assert service["restart"] == "unless-stopped"
    check = service["healthcheck"]
    assert check["test"][0] in {"CMD", "CMD-SHELL"} and seconds(check["timeout"]) <= seconds(check["interval"])
    # A worker gives its run back within STOP_SECONDS; what is killed earlier is a lost attempt.
    assert seconds(service["stop_grace_period"]) >= STOP_SECONDS + 10


def test_the_gpu_worker_gets_gpus_and_room_for_its_processes() -> None:
    for gpu_worker in (services(OVERLAYS[0])["gpu-worker"], services(NODE)["gpu-worker"]):
        (device,) = gpu_worker["deploy"]["resources"]["reservations"]["devices"]
        assert device == {"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}
        assert gpu_worker["shm_size"] == "8gb"
    assert services(BASE)["gpu-worker"]["shm_size"] == "2gb"


def test_data_is_in_named_volumes() -> None:
    known = set(compose(BASE)["volumes"])
    used = {volume.split(":")[0] for service in services(BASE).values() for volume in service.get("volumes", ())}
    assert used == known == {"postgres", "redis", "data"}


@pytest.mark.parametrize(("name", "part"), [*((BASE, part) for part in OURS), (NODE, "gpu-worker")])
def test_ours_run_without_privileges(name: str, part: str) -> None:
    service = services(name)[part]
    assert service["cap_drop"] == ["ALL"] and service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service and "user" not in service, "the image's user is not root"


def test_nothing_of_ours_starts_before_what_it_needs() -> None:
    parts = services(BASE)
    assert parts["prepare"]["restart"] == "no"
    for part in ("web", "worker", "gpu-worker", "cpu-worker", "beat"):
        needs = {name: how["condition"] for name, how in parts[part]["depends_on"].items()}
        assert needs.pop("prepare") == "service_completed_successfully"
        assert needs and set(needs.values()) == {"service_healthy"}
