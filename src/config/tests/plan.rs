//! Plans are rendered to files that load, and every process has its duties.

use std::path::{Path, PathBuf};

use plexus_config as config;

use config::plan::{Class, ClusterFile, Plan, Role as PlanRole, RouteRow};
use config::{Config, Role, StreamGroup};

fn plan(toml: &str, folder: &Path) -> Plan {
    let file = ClusterFile::parse(toml).unwrap_or_else(|e| panic!("{toml}: {e}"));
    Plan::new(file, folder, Path::new("/usr/bin/plexus")).expect("plan")
}

fn routes() -> Vec<RouteRow> {
    let row = |method: &str, path: &str, class| RouteRow { method: method.into(), path: path.into(), class };
    vec![
        row("GET", "/_matrix/client/(r0|v3)/sync", Class::SyncByUser),
        row("PUT", "/_matrix/client/(r0|v3)/rooms/{room_id}/typing/{user_id}", Class::Writer("typing".into())),
        row("PUT", "/_matrix/client/(r0|v3)/rooms/{room_id}/send/{type}/{txn}", Class::RoomShard),
        row("GET", "/_matrix/client/(r0|v3)/rooms/{room_id}/messages", Class::RoomRead),
        row("PUT", "/_matrix/federation/v1/send/{txn}", Class::Federation),
        row("POST", "/_matrix/client/(r0|v3)/logout", Class::Main),
        row("GET", "/_matrix/client/versions", Class::Any),
    ]
}

/// Renders into a folder, with the secrets, and loads each process.
fn load_all(toml: &str) -> (Vec<Config>, Vec<(PathBuf, String)>) {
    static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let n = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let folder = std::env::temp_dir().join(format!("plexus-plan-{}-{n}", std::process::id()));
    let plan = plan(toml, &folder);
    let rendered = plan.render(&routes());
    for file in &rendered {
        let path = plan.config_dir.join(&file.path);
        std::fs::create_dir_all(path.parent().expect("parent")).expect("folder");
        std::fs::write(path, &file.text).expect("file");
    }
    std::fs::create_dir_all(plan.secrets_dir()).expect("folder");
    for path in plan.secret_files() {
        std::fs::write(path, "secret").expect("secret");
    }
    std::fs::write(plan.signing_key(), config::generate::signing_key().expose_line()).expect("key");
    let configs = plan
        .processes
        .iter()
        .map(|process| {
            let role = if process.role.is_some() { Role::Worker } else { Role::Homeserver };
            let loaded =
                Config::load(&plan.config_files(process), role).unwrap_or_else(|e| panic!("{}: {e:#?}", process.name));
            assert_eq!(loaded.warnings, Vec::<String>::new(), "{}", process.name);
            loaded.config
        })
        .collect();
    std::fs::remove_dir_all(&folder).expect("clean up");
    (configs, rendered.into_iter().map(|f| (f.path, f.text)).collect())
}

#[test]
fn every_preset_loads_and_every_stream_has_its_writer() {
    for (preset, processes) in [("single", 1), ("small", 3), ("medium", 8), ("large", 22)] {
        let (configs, files) = load_all(&format!("server_name = 'localhost'\npreset = '{preset}'\n"));
        assert_eq!(configs.len(), processes, "{preset}");
        let duties: Vec<_> = configs.iter().map(Config::duties).collect();
        for group in StreamGroup::ALL {
            let writers = duties.iter().filter(|d| d.writes(group)).count();
            assert!(writers >= 1 && (writers == 1 || !group.is_single()), "{preset}: {group:?} has {writers} writers");
        }
        let one = |does: fn(&config::Duties) -> bool| duties.iter().filter(|d| does(d)).count() == 1;
        assert!(
            one(|d| d.is_main)
                && one(|d| d.background_tasks)
                && one(|d| d.user_directory)
                && one(|d| d.media_background_jobs),
            "{preset}"
        );
        assert!(duties.iter().any(|d| d.pushers) && duties.iter().any(|d| d.federation_sender), "{preset}");
        let units = |kind: &str| files.iter().filter(|(path, _)| path.extension().is_some_and(|e| e == kind)).count();
        // The schema and the canary.
        assert_eq!((units("socket"), units("service")), (processes, processes + 2), "{preset}");
    }
}

#[test]
fn ports_stay_when_another_role_grows() {
    let port = |toml: &str, name: &str| {
        let plan = plan(toml, Path::new("/x"));
        plan.processes.iter().find(|p| p.name == name).map(|p| p.http.clone()).expect("process")
    };
    let small = port("server_name = 'a.b'\n", "sync1");
    assert_eq!(small, port("server_name = 'a.b'\n[workers]\nevents = 20\nclient = 3\n", "sync1"));
    let plan = plan("server_name = 'a.b'\npreset = 'large'\n", Path::new("/x"));
    let mut places: Vec<String> =
        plan.processes.iter().flat_map(|p| [format!("{:?}", p.http), format!("{:?}", p.replication)]).collect();
    let count = places.len();
    places.sort();
    places.dedup();
    assert_eq!(places.len(), count);
    assert_eq!(plan.of_role(PlanRole::Events).count(), 4);
    assert!(plan.max_connections() >= 100);
}

#[test]
fn sockets_settings_and_foreign_services_are_rendered() {
    let toml = "server_name = 'example.com'\nunix_sockets = true\ndata_dir = '/var/lib/plexus'\n[database]\nhost = 'db.example.com'\nuser = 'u'\n[redis]\nhost = 'redis.example.com'\n[settings]\nenable_metrics = false\nrc_message = { per_second = 100, burst_count = 1000 }\n";
    let plan = plan(toml, Path::new("/etc/plexus"));
    let files = plan.render(&routes());
    let text = |name: &str| files.iter().find(|f| f.path == Path::new(name)).map(|f| f.text.clone()).expect(name);
    let shared = text("homeserver.yaml");
    for line in [
        "path: /var/lib/plexus/run/main.http.sock",
        "host: db.example.com",
        "host: redis.example.com",
        "enable_metrics: false",
    ] {
        assert!(shared.contains(line), "{line} is not in\n{shared}");
    }
    assert!(
        text("live.yaml").contains("rc_message:\n  burst_count: 1000\n  per_second: 100\n"),
        "{}",
        text("live.yaml")
    );
    assert_eq!(shared.matches("enable_metrics").count(), 1);
    let nginx = text("nginx/plexus.conf");
    assert!(nginx.contains("server unix:/var/lib/plexus/run/sync1.http.sock max_fails=0; # sync1"), "{nginx}");
    assert!(text("systemd/plexus-events1.service").contains("ExecStart=/usr/bin/plexus worker -c /var/lib/plexus/config/homeserver.yaml -c /var/lib/plexus/config/workers/events1.yaml -c /var/lib/plexus/config/live.yaml"));
    assert!(!shared.contains("secret: "), "{shared}");
}

#[test]
fn prometheus_finds_every_process() {
    let targets = |plan: &Plan| {
        let files = plan.render(&routes());
        let text = |name: &str| files.iter().find(|f| f.path == Path::new(name)).map(|f| f.text.clone()).expect("file");
        let targets: serde_json::Value = serde_json::from_str(&text("prometheus.json")).expect("json");
        let one = |t: &serde_json::Value| {
            format!("{} {}{}", t["labels"]["instance"], t["targets"][0], t["labels"]["__metrics_path__"])
                .replace('"', "")
        };
        (targets.as_array().expect("list").iter().map(one).collect::<Vec<_>>(), text("nginx/plexus.conf"))
    };
    let (tcp, _) = targets(&plan(HOSTS, Path::new("/x")).on_host(Some("one")).expect("host"));
    assert_eq!(tcp[0], "main 10.0.0.1:8019/_synapse/metrics");
    assert_eq!((tcp.len(), tcp[4].as_str()), (5, "two-sync1 [fd00::2]:8099/_synapse/metrics"));
    let sockets = "server_name = 'a.b'\nunix_sockets = true\n";
    assert!(targets(&plan(sockets, Path::new("/x"))).0.is_empty());
    let (unix, nginx) = targets(&plan(&format!("{sockets}[nginx]\nmetrics_port = 9008\n"), Path::new("/x")));
    assert_eq!(unix, ["main 127.0.0.1:9008/main", "events1 127.0.0.1:9008/events1", "sync1 127.0.0.1:9008/sync1"]);
    assert!(
        nginx.contains("location = /sync1 { proxy_pass http://unix:/x/run/sync1.replication.sock:/_synapse/metrics; }"),
        "{nginx}"
    );
}

#[test]
fn routes_lead_to_the_role_that_is_there() {
    let nginx = |toml: &str| {
        let files = plan(toml, Path::new("/x")).render(&routes());
        files.into_iter().find(|f| f.path == Path::new("nginx/plexus.conf")).expect("file").text
    };
    let small = nginx("server_name = 'a.b'\n");
    assert!(small.contains("\"~^GET /_matrix/client/(?:r0|v3)/sync$\" plexus_sync;"), "{small}");
    assert!(small.contains("upstream plexus_room_write {\n    server 127.0.0.1:8058 max_fails=0; # events1\n    server 127.0.0.1:8018 backup; # main\n"), "{small}");
    assert!(small.contains("\"~^POST /_matrix/client/(?:r0|v3)/logout$\" plexus_main;"), "{small}");
    let large = nginx("server_name = 'a.b'\npreset = 'large'\n");
    assert!(large.contains("upstream plexus_sync {\n    hash $plexus_user consistent;\n    server 127.0.0.1:8098 max_fails=0; # sync1\n"), "{large}");
    assert!(
        large.contains("upstream plexus_write_typing {\n    server 127.0.0.1:8298 max_fails=0; # streams1\n"),
        "{large}"
    );
}

const HOSTS: &str = "server_name = 'a.b'\nprivate_network = true\n[hosts.one]\naddress = '10.0.0.1'\nmain = true\ndatabase = true\nredis = true\nproxy = true\nworkers = { sync = 1 }\n[hosts.two]\naddress = 'fd00::2'\nworkers = { sync = 1, events = 2 }\n";

#[test]
fn each_host_takes_its_part_of_one_file() {
    let part = |host: &str| plan(HOSTS, Path::new("/x")).on_host(Some(host)).expect("host");
    let files = |host: &str| part(host).render(&routes());
    let names = |host: &str| files(host).into_iter().map(|f| f.path.display().to_string()).collect::<Vec<_>>();
    let text = |host: &str, name: &str| {
        files(host).into_iter().find(|f| f.path == Path::new(name)).map(|f| f.text).expect(name)
    };
    assert_eq!(
        names("two"),
        [
            "homeserver.yaml",
            "live.yaml",
            "log.config",
            "workers/two-events1.yaml",
            "workers/two-events2.yaml",
            "workers/two-sync1.yaml",
            "workers/canary.yaml",
            "postgresql.conf",
            "prometheus.json",
            "systemd/plexus.target",
            "systemd/plexus.slice",
            "systemd/plexus-two-events1.socket",
            "systemd/plexus-two-events1.service",
            "systemd/plexus-two-events2.socket",
            "systemd/plexus-two-events2.service",
            "systemd/plexus-two-sync1.socket",
            "systemd/plexus-two-sync1.service",
            "systemd/plexus-canary.service",
            "systemd/plexus-schema.service"
        ]
    );
    assert!(
        names("one").contains(&"nginx/plexus.conf".to_owned())
            && names("one").contains(&"systemd/plexus-main.service".to_owned())
    );
    assert_eq!(text("one", "homeserver.yaml"), text("two", "homeserver.yaml"));
    let shared = text("one", "homeserver.yaml");
    for line in [
        "host: 10.0.0.1\n    port: 5432",
        "  host: 10.0.0.1\n  port: 6379",
        "  two-events2:\n    host: \"fd00::2\"\n    port: 8061",
        "  events: [two-events1, two-events2]",
    ] {
        assert!(shared.contains(line), "{line} is not in\n{shared}");
    }
    assert!(
        text("one", "nginx/plexus.conf").contains("server [fd00::2]:8098 max_fails=1 fail_timeout=5s; # two-sync1")
    );
    // The first of a role on each host has the same port.
    assert!(text("two", "workers/two-sync1.yaml").contains("port: 8098\n    bind_addresses: [\"fd00::2\"]"));
    assert!(plan(HOSTS, Path::new("/x")).on_host(None).expect_err("no host").contains("one, two"));
    assert!(plan(HOSTS, Path::new("/x")).on_host(Some("three")).expect_err("unknown").contains("there is no three"));
}

#[test]
fn wrong_cluster_files_are_refused() {
    let changed = [
        ("'fd00::2'", "'10.0.0.1'", "10.0.0.1 is another host's too"),
        ("'fd00::2'", "'127.0.0.1'", "hosts.two.address"),
        ("'fd00::2'", "'two'", "hosts.two.address: invalid IP address"),
        ("events = 2", "evnts = 2", "hosts.two.workers.evnts: there is no such role; allowed: events, sync"),
        ("main = true\n", "", "no host has main"),
        ("events = 2", "events = 21", "hosts.two.workers.events"),
        ("[hosts.one]", "[workers]\nsync = 1\n[hosts.one]", "hosts.NAME.workers"),
        ("[hosts.two]", "[hosts.two]\nmain = true", "one, two have main"),
        ("[hosts.one]", "[redis]\nhost = 'h'\n[hosts.one]", "redis.host is set too"),
        (
            "sync = 1, events = 2 }",
            "media = 1 }\n[hosts.three]\naddress = '10.0.0.3'\nworkers = { media = 1 }",
            "workers.media: found 2",
        ),
    ];
    for (from, to, part) in changed {
        let error = ClusterFile::parse(&HOSTS.replace(from, to)).expect_err(to);
        assert!(error.contains(part), "{to}: {error}");
    }
    for (toml, part) in [
        ("server_name = 'a.b'\n[resources.sink]\npool = 3\n", "resources.sink"),
        ("server_name = 'a.b'\n[resources.sync]\nmemory_max = \"1G\\nUser=root\"\n", "resources.sync.memory_max"),
        ("server_name = 'a.b'\n[resources.sync]\npool = 1\n", "pool"),
        ("server_name = 'a.b'\nlog_level = 'loud'\n", "log_level"),
        ("", "server_name"),
        ("server_name = 'a b'", "server_name"),
        ("server_name = 'a'\nport = 1", "port"),
        ("server_name = 'a'\npreset = 'huge'", "huge"),
        ("server_name = 'a'\n[workers]\nnonsense = 1", "workers.nonsense: there is no such role"),
        ("server_name = 'a'\n[workers]\nsync = -1", "workers.sync: invalid value"),
        ("server_name = 'a'\n[workers]\nbackground = 2", "workers.background: found 2; allowed: 0 to 1"),
        ("server_name = 'a'\nbase_port = 65500", "base_port"),
        ("server_name = 'a'\n[nginx]\ntls_key = 'k'", "tls_certificate and tls_key"),
    ] {
        let error = ClusterFile::parse(toml).expect_err(toml);
        assert!(error.contains(part), "{toml}: {error}");
    }
    let long = "x".repeat(120);
    let file =
        ClusterFile::parse(&format!("server_name = 'a'\nunix_sockets = true\ndata_dir = '/{long}'\n")).expect("file");
    assert!(
        Plan::new(file, Path::new("/"), Path::new("p")).expect_err("too long").contains("longer than a socket's path")
    );
}

/// The generation of a unit: what all agree on, what is its own.
fn generation(toml: &str, unit: &str) -> (String, String) {
    let files = plan(toml, Path::new("/x")).render(&routes());
    let text = files.into_iter().find(|f| f.path == Path::new("systemd").join(unit)).map(|f| f.text).expect("unit");
    let line = text.lines().find_map(|l| l.strip_prefix("Environment=PLEXUS_GENERATION=")).expect("generation");
    let (agreed, own) = line.split_once('-').expect("two parts");
    (agreed.to_owned(), own.to_owned())
}

#[test]
fn only_those_concerned_by_a_change_get_another_generation() {
    let base = "server_name = 'a.b'\npreset = 'large'\n";
    let (sync, main, media) = ("plexus-sync1.service", "plexus-main.service", "plexus-media1.service");
    let changed = |more: &str, unit: &str| {
        let (old, new) = (generation(base, unit), generation(&format!("{base}{more}"), unit));
        (old.0 != new.0, old.1 != new.1)
    };
    // More of those nobody asks for anything concern nobody, nor does what a reload takes over.
    for more in [
        "[workers]\nsync = 6\nclient = 1\n",
        "log_level = 'DEBUG'\n[settings]\nrc_message = { per_second = 1, burst_count = 1 }\n",
    ] {
        for unit in [sync, main, media] {
            assert_eq!(changed(more, unit), (false, false), "{more} {unit}");
        }
    }
    let more = "[settings]\nmax_upload_size = '1M'\n";
    assert_eq!([sync, main, media].map(|unit| changed(more, unit)), [(false, false), (false, false), (false, true)]);
    assert_eq!(changed("[settings]\nenable_metrics = false\n", sync), (false, true));
    assert_eq!(changed("[resources.sync]\nmemory_high = '1G'\n", sync), (false, true));
    assert_eq!(changed("[resources.sync]\nmemory_high = '1G'\n", main), (false, false));
    // Who writes what is everybody's affair.
    assert!([sync, main, media].iter().all(|unit| changed("[workers]\nevents = 5\n", unit).0));
}

#[test]
fn few_speak_to_other_servers_for_all() {
    let settings = |more: &str| format!("server_name = 'localhost'\npreset = 'large'\n[settings]\n{more}\n");
    for (toml, speakers) in [
        (settings(""), vec!["sender1", "sender2"]),
        (
            settings("outbound_federation_restricted_to = ['client1', 'master']")
                .replace("[settings]", "[workers]\nclient = 1\n[settings]"),
            vec!["main", "client1"],
        ),
        ("server_name = 'localhost'\npreset = 'medium'\n".to_owned(), vec!["main"]),
        ("server_name = 'localhost'\npreset = 'single'\n".to_owned(), vec!["main"]),
    ] {
        let (configs, _) = load_all(&toml);
        let names: Vec<String> = configs
            .iter()
            .map(Config::duties)
            .filter(|d| d.outbound_federation)
            .map(|d| d.instance.replace("master", "main"))
            .collect();
        assert_eq!(names, speakers, "{toml}");
    }
    let (configs, _) = load_all(&settings("outbound_federation_restricted_to = []"));
    assert!(configs.iter().all(|c| c.duties().outbound_federation));
}

#[test]
fn units_say_what_is_asked_for() {
    let toml = "server_name = 'a.b'\nunix_sockets = true\ndata_dir = '/var/lib/plexus'\n[database]\nhost = '/run/postgresql'\n[redis]\npath = '/run/redis'\n[systemd]\nlive_dir = '/etc/plexus'\ncredentials = { form = '/s/form' }\nencrypted_credentials = { macaroon = '/s/m' }\nextra_files = ['extra.yaml']\n[resources.main]\npool = 30\ncpu_weight = 200\nmemory_max = '2G'\n";
    let files = plan(toml, Path::new("/etc")).render(&routes());
    let text = |name: &str| files.iter().find(|f| f.path == Path::new(name)).map(|f| f.text.clone()).expect(name);
    let (main, sync) = (text("systemd/plexus-main.service"), text("systemd/plexus-sync1.service"));
    for line in [
        "LoadCredential=form:/s/form",
        "LoadCredentialEncrypted=macaroon:/s/m",
        "MemoryMax=2G",
        "CPUWeight=200",
        "-c /etc/plexus/live.yaml -c %d/extra.yaml",
        "Type=notify-reload",
        "Requires=plexus-main.socket",
    ] {
        assert!(main.contains(line), "{line} is not in\n{main}");
    }
    assert!(
        !main.contains("IPAddressDeny")
            && sync.contains("IPAddressDeny=any\nIPAddressAllow=localhost\n")
            && !sync.contains("MemoryMax"),
        "{sync}"
    );
    assert!(text("systemd/plexus-sync1.socket").contains("ListenStream=/var/lib/plexus/run/sync1.http.sock\nListenStream=/var/lib/plexus/run/sync1.replication.sock\nSocketUser=plexus"));
    assert!(text("homeserver.yaml").contains("cp_max: 30") && text("workers/sync1.yaml").contains("cp_max: 8"));
    assert!(text("log.config").contains("root:\n  level: INFO"));
}
