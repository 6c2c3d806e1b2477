//! Precedence, refusals and secrets, over all sources.

use super::*;
use std::ffi::OsString;

const KEY: &str = "k1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

fn resolve(flags: &[(&str, &str)], environment: &[(&str, &str)], file: &str) -> Result<Effective, String> {
    let owned = |(a, b): &(&str, &str)| ((*a).to_owned(), (*b).to_owned());
    let os = |(a, b): &(&str, &str)| (OsString::from(a), OsString::from(b));
    let inputs = Inputs {
        flags: flags.iter().map(owned).collect(),
        environment: environment.iter().map(os).collect(),
        file: (!file.is_empty()).then(|| ("reedi.toml".into(), file.to_owned())),
    };
    inputs.resolve().map_err(|e| e.to_string())
}

fn shown(effective: &Effective, name: &str) -> (String, String) {
    let found = effective.shown.iter().find(|shown| shown.name == name).unwrap();
    (found.value.clone(), found.source.to_string())
}

#[test]
fn the_defaults_work_alone() {
    let config = resolve(&[], &[], "").unwrap().config;
    assert_eq!(config.process.listen, SocketAddr::from(([127, 0, 0, 1], 8080)));
    assert_eq!(config.division.shards.count(), 64);
    assert_eq!(config.limits.outbox_bytes.bytes(), 2 << 20);
    assert_eq!(config.accounts_of(true), AccountsOf::Own);
    assert_eq!(config.accounts_of(false), AccountsOf::Platform);
    assert!(config.warnings().is_empty());
}

#[test]
fn a_flag_beats_the_environment_beats_the_file_beats_the_default() {
    let file =
        "shards = 2\nlog_level = 'warn'\nlisten = '127.0.0.1:1'\n[nats]\nurl = ['nats://a:1', 'nats://b:1']";
    let environment = [("REEDI_SHARDS", "4"), ("REEDI_LISTEN", "127.0.0.1:2"), ("PATH", "/bin")];
    let effective = resolve(&[("shards", "8")], &environment, file).unwrap();
    assert_eq!(shown(&effective, "shards"), ("8".into(), "flag".into()));
    assert_eq!(shown(&effective, "listen"), ("127.0.0.1:2".into(), "environment".into()));
    assert_eq!(shown(&effective, "log_level"), ("warn".into(), "file reedi.toml".into()));
    assert_eq!(shown(&effective, "nats_url").0, "nats://a:1,nats://b:1");
    assert_eq!(shown(&effective, "cql_keyspace"), ("reedi".into(), "default".into()));
}

#[test]
fn an_unknown_setting_is_refused_with_the_nearest_name() {
    let error = resolve(&[], &[("REEDI_NATS_ULR", "x")], "[nats]\nreplica = 3\n").unwrap_err();
    assert!(
        error.contains("REEDI_NATS_ULR (environment) is no setting; did you mean REEDI_NATS_URL?"),
        "{error}"
    );
    assert!(
        error.contains("nats_replica (file reedi.toml) is no setting; did you mean nats_replicas?"),
        "{error}"
    );
    let error = resolve(&[], &[("REEDI_ENTIRELY_DIFFERENT", "x")], "").unwrap_err();
    assert!(error.ends_with("REEDI_ENTIRELY_DIFFERENT (environment) is no setting"), "{error}");
}

#[test]
fn what_is_not_ours_is_left_alone() {
    let environment = [
        ("REEDI_TEST_NATS_URL", "x"),
        ("REEDI_CONFIG", "x"),
        ("REEDI_SERVICE_HOST", "10.0.0.1"),
        ("REEDI_EDGE_SERVICE_PORT_HTTP", "80"),
        ("REEDI_PORT", "tcp://10.0.0.1:80"),
        ("REEDI_PORT_80_TCP_ADDR", "10.0.0.1"),
        ("HOME", "/"),
    ];
    resolve(&[], &environment, "").unwrap();
    for not_a_link in [("REEDI_PORT", "80"), ("REEDI_PORT_X", "1")] {
        assert!(resolve(&[], &[not_a_link], "").is_err(), "{not_a_link:?}");
    }
}

#[test]
fn what_is_wrong_is_told_all_at_once_with_source_and_what_is_accepted() {
    let file = "group_members = 1\ndrain_seconds = 1.5\n";
    let error = resolve(&[("listen", "here")], &[("REEDI_SHARDS", "3")], file).unwrap_err();
    assert!(
        error.contains("drain_seconds (file reedi.toml) wants a whole number from 0 to 3600; got \"float\""),
        "{error}"
    );
    let error = resolve(&[("listen", "here")], &[("REEDI_SHARDS", "3")], "group_members = 1").unwrap_err();
    for part in [
        "--listen (flag) wants an address and port, such as 127.0.0.1:8080 or [::]:8080; got \"here\"",
        "REEDI_SHARDS (environment) wants a power of two from 1 to 256; got \"3\"",
        "group_members (file reedi.toml) wants a whole number from 2 to 10000; got \"1\"",
    ] {
        assert!(error.contains(part), "{part} is not in\n{error}");
    }
}

#[test]
fn a_file_that_is_no_toml_is_told_by_line_without_its_content() {
    let error = resolve(&[], &[], "shards = 2\ncql_password = \"s3cret\n").unwrap_err();
    assert!(error.contains("reedi.toml") && error.contains("line 2"), "{error}");
    assert!(!error.contains("s3cret"), "{error}");
    let error = resolve(&[], &[], "nats_url = 'nats://a'\n[nats]\nurl = 'nats://b'\n").unwrap_err();
    assert!(error.contains("nats_url stands twice"), "{error}");
}

#[cfg(unix)]
#[test]
fn a_value_that_is_not_utf8_is_refused() {
    use std::os::unix::ffi::OsStringExt;
    let environment = vec![("REEDI_SHARDS".into(), OsString::from_vec(vec![0xff]))];
    let error = Inputs { environment, ..Inputs::default() }.resolve().unwrap_err().to_string();
    assert!(error.contains("REEDI_SHARDS (environment) is not UTF-8"), "{error}");
}

#[test]
fn a_secret_in_place_of_a_name_is_not_told() {
    let secret = "a secret of more than thirty-two bytes";
    for file in [
        format!("[auth]\n\"{secret}\" = \"\""),
        format!("[auth]\n\"{secret}\" = true"),
        format!("[\"{secret}\"]\nurl = 1"),
        format!("[a]\n\"b_{secret}\" = 1\n[a_b]\n\"{secret}\" = 1"),
    ] {
        let error = resolve(&[], &[], &file).unwrap_err();
        assert!(error.contains("hidden bytes") && !error.contains("a secret"), "{error}");
    }
    let error = resolve(&[], &[], "nats-url_of.mine = 'x'").unwrap_err();
    assert!(error.contains("nats-url_of_mine (file reedi.toml) is no setting"), "{error}");
}

#[test]
fn no_text_shows_a_secret() {
    let environment = [
        ("REEDI_AUTH_HS256_SECRET", "s3cret-s3cret-s3cret"),
        ("REEDI_CQL_USER", "reedi"),
        ("REEDI_CQL_PASSWORD", "s3cret"),
        ("REEDI_REDIS_URL", "redis://:s3cret@a"),
        ("REEDI_SEAL_KEYS", KEY),
    ];
    let effective = resolve(&[], &environment, "").unwrap();
    for text in [effective.describe(), format!("{effective:?}")] {
        assert!(!text.contains("s3cret") && !text.contains("AAECAw"), "{text}");
        assert!(text.contains("hidden"), "{text}");
    }
    let wrong =
        [("REEDI_AUTH_HS256_SECRET", "s3cret"), ("REEDI_SEAL_KEYS", "s3cret"), ("REEDI_NATS_URL", "s3cret")];
    let error = resolve(&[], &wrong, "").unwrap_err();
    assert!(error.lines().count() == 3 && !error.contains("s3cret"), "{error}");
}

#[test]
fn half_of_a_pair_is_an_error() {
    let error = resolve(&[], &[("REEDI_CQL_PASSWORD", "s3cret")], "").unwrap_err();
    assert!(error.contains("REEDI_CQL_USER (--cql-user) is not set, and REEDI_CQL_PASSWORD is"), "{error}");
    let error = resolve(&[], &[("REEDI_CQL_USER", "reedi")], "").unwrap_err();
    assert!(
        error.contains("REEDI_CQL_PASSWORD (--cql-password) is not set, and REEDI_CQL_USER is"),
        "{error}"
    );
}

#[test]
fn copies_in_several_datacenters_want_to_know_which_one_is_used() {
    let with = |replication: &str, local: &str| {
        let set = [("REEDI_CQL_REPLICATION", replication), ("REEDI_CQL_LOCAL_DATACENTER", local)];
        resolve(&[], &set, "").map(|effective| effective.config.cql.local_datacenter)
    };
    let error = with("east:3,west:3", "").unwrap_err();
    assert!(error.contains("REEDI_CQL_LOCAL_DATACENTER (--cql-local-datacenter) is not set"), "{error}");
    let error = with("east:3,west:3", "north").unwrap_err();
    assert!(error.contains("\"north\"") && error.contains("REEDI_CQL_REPLICATION"), "{error}");
    assert!(with("3", "a'b").unwrap_err().contains("a datacenter's name"));
    for (replication, local) in [("east:3,west:3", "west"), ("east:3", "east"), ("3", "east")] {
        assert_eq!(with(replication, local).unwrap().unwrap().as_str(), local);
    }
    for replication in ["3", "east:3"] {
        assert_eq!(with(replication, "").unwrap(), None);
    }
}

#[test]
fn what_a_cluster_lacks_is_named() {
    let config = resolve(&[], &[("REEDI_NATS_URL", "nats://a")], "").unwrap().config;
    let error = config.cluster().unwrap_err().to_string();
    assert!(error.contains("REEDI_CQL_CONTACT_POINTS") && error.contains("REEDI_REDIS_URL"), "{error}");
    assert!(!error.contains("REEDI_NATS_URL"), "{error}");
    let error = config.check_edge().unwrap_err().to_string();
    for name in ["REEDI_SEAL_KEYS", "REEDI_AUTH_JWKS_URL", "REEDI_PEOPLE_URL"] {
        assert!(error.contains(name), "{name} is not in {error}");
    }
    let own = [
        ("REEDI_ACCOUNTS", "own"),
        ("REEDI_SEAL_KEYS", KEY),
        ("REEDI_AUTH_HS256_SECRET", "0123456789abcdef"),
    ];
    let config = resolve(&[], &own, "").unwrap().config;
    config.check_edge().unwrap();
    assert_eq!(config.warnings().len(), 1);
}

#[test]
fn clap_takes_every_flag_and_refuses_others_with_the_nearest() {
    let command = clap::Command::new("reedi").args(flags());
    command.clone().debug_assert();
    let matches = command.clone().get_matches_from(["reedi", "--shards", "16", "--nats-url=nats://a"]);
    let inputs = Inputs::of_process(&matches).unwrap();
    assert_eq!(
        inputs.flags,
        [("shards".to_owned(), "16".to_owned()), ("nats_url".into(), "nats://a".into())]
    );
    let error = command.clone().try_get_matches_from(["reedi", "--nats-ulr", "x"]).unwrap_err().to_string();
    assert!(error.contains("--nats-url"), "{error}");
    let help = command.clone().render_long_help().to_string();
    assert!(SETTINGS.iter().all(|s| help.contains(s.env) && help.contains(s.flag)), "{help}");
}

#[test]
fn a_file_is_named_by_a_flag() {
    let path = std::env::temp_dir().join(format!("reedi-config-{}.toml", std::process::id()));
    std::fs::write(&path, "shards = 32").unwrap();
    let command = clap::Command::new("reedi").args(flags());
    let matches =
        command.clone().get_matches_from([OsString::from("reedi"), "--config".into(), path.clone().into()]);
    let effective = Inputs::of_process(&matches).unwrap().resolve();
    std::fs::remove_file(&path).unwrap();
    assert_eq!(effective.unwrap().config.division.shards.count(), 32);
    let Err(error) = Inputs::of_process(&matches) else { panic!("the file is gone") };
    assert!(error.to_string().contains("cannot be read"), "{error}");
}

#[test]
fn every_setting_has_its_own_names_and_a_default_that_is_accepted() {
    let mut names = std::collections::HashSet::new();
    for setting in SETTINGS {
        assert!(names.insert(setting.name), "{} twice", setting.name);
        assert_eq!(setting.env, format!("REEDI_{}", setting.name.to_uppercase()));
        assert_eq!(setting.flag, setting.name.replace('_', "-"));
        assert!(setting.accepts(setting.default), "default of {}", setting.name);
        assert!(setting.doc.ends_with('.'), "{}", setting.name);
    }
}
