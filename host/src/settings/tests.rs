//! Which settings result from the layers, and what is refused.

use super::*;

fn variables(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    pairs.iter().map(owned).collect()
}

fn flags(values: &[(&'static str, &str)], config: Option<PathBuf>) -> Flags {
    let owned = |(key, value): &(&'static str, &str)| (*key, (*value).to_owned());
    Flags {
        config,
        values: values.iter().map(owned).collect(),
    }
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
    std::fs::write(file.path(), text).unwrap();
    file
}

#[test]
fn flags_go_over_variables_over_the_file_over_defaults() {
    let file = file("listen = \"127.0.0.1:1\"\nprojector_tasks = 3\nrole = [\"projector\"]\n");
    let flags = flags(&[("log", "sqlite:a.db")], Some(file.path().to_owned()));
    let environment = variables(&[
        ("ANNALS_PROJECTOR_TASKS", "4"),
        ("ANNALS_LOG", "sqlite:b.db"),
    ]);
    let settings = Settings::from_layers(&flags, environment).unwrap();
    assert_eq!(settings.log.to_string(), "sqlite:a.db");
    assert_eq!(settings.source("log"), "flag --log");
    assert_eq!(settings.projector_tasks, 4);
    assert_eq!(
        settings.source("projector_tasks"),
        "variable ANNALS_PROJECTOR_TASKS"
    );
    assert_eq!(settings.listen, "127.0.0.1:1");
    assert!(settings.source("listen").ends_with(".toml"));
    assert_eq!(settings.roles.names(), "projector");
    assert_eq!(settings.source("url"), "default");
}

#[test]
fn paths_below_the_data_folder_follow_its_setting() {
    let settings = Settings::from_layers(&flags(&[("data", "d")], None), vec![]).unwrap();
    assert_eq!(settings.log.to_string(), "sqlite:d/log.db");
    assert_eq!(
        settings.clone().in_own_folder("demo").data,
        PathBuf::from("d")
    );
    let settings = Settings::from_layers(&Flags::default(), vec![]).unwrap();
    let settings = settings.in_own_folder("demo");
    assert_eq!(settings.log.to_string(), "sqlite:.annals/demo/log.db");
}

#[test]
fn a_key_that_nobody_knows_is_an_error_in_every_layer() {
    let file = file("postgers = \"postgres://x\"\n");
    let named = flags(&[], Some(file.path().to_owned()));
    let failure = Settings::from_layers(&named, vec![]).unwrap_err();
    assert_eq!(failure.exit, Exit::Usage);
    assert!(
        failure.message.contains("\"postgers\""),
        "{}",
        failure.message
    );
    assert!(failure.message.contains(".toml"), "{}", failure.message);
    let environment = variables(&[("ANNALS_POSTGERS", "postgres://x")]);
    let failure = Settings::from_layers(&Flags::default(), environment).unwrap_err();
    assert!(
        failure.message.contains("ANNALS_POSTGERS"),
        "{}",
        failure.message
    );
    let nested = self::file("[log]\nfilter = \"info\"\n");
    let named = flags(&[], Some(nested.path().to_owned()));
    assert_eq!(
        Settings::from_layers(&named, vec![]).unwrap_err().exit,
        Exit::Usage
    );
}

#[test]
fn a_service_of_the_same_name_in_a_cluster_is_no_setting() {
    let environment = variables(&[
        ("ANNALS_PORT", "tcp://10.0.0.1:4747"),
        ("ANNALS_PORT_4747_TCP", "tcp://10.0.0.1:4747"),
        ("ANNALS_PORT_4747_TCP_ADDR", "10.0.0.1"),
        ("ANNALS_SERVICE_HOST", "10.0.0.1"),
        ("ANNALS_QUERY_SERVICE_PORT_HTTP", "4747"),
        ("ANNALS_OLIST_DIR", "/data"),
        ("ANNALS_URL", ""),
    ]);
    let settings = Settings::from_layers(&Flags::default(), environment).unwrap();
    assert_eq!(settings.source("url"), "default");
}

#[test]
fn a_value_of_the_wrong_kind_names_its_place() {
    for (key, value) in [
        ("ANNALS_PROJECTOR_TASKS", "many"),
        ("ANNALS_PROJECTOR_TASKS", "0"),
        ("ANNALS_LOG", "mysql:x"),
        ("ANNALS_ROLE", "writer"),
        ("ANNALS_INSECURE", "perhaps"),
        ("ANNALS_OUTPUT", "xml"),
    ] {
        let environment = variables(&[(key, value)]);
        let failure = Settings::from_layers(&Flags::default(), environment).unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        assert!(failure.message.contains(key), "{}", failure.message);
    }
}

#[test]
fn damage_is_acknowledged_by_place_with_a_reason() {
    let variable = |text| {
        let environment = variables(&[("ANNALS_ACKNOWLEDGED_DAMAGE", text)]);
        Settings::from_layers(&Flags::default(), environment)
    };
    let of_file = file("[[acknowledged_damage]]\npartition = 3\noffset = 17\nreason = \"disk\"\n");
    let of_file = flags(&[], Some(of_file.path().to_owned()));
    let of_file = Settings::from_layers(&of_file, vec![]).unwrap();
    let of_variable = variable("3:17=disk").unwrap();
    assert_eq!(of_file.acknowledged_damage, of_variable.acknowledged_damage);
    assert_eq!(of_file.acknowledged_damage.iter().count(), 1);
    assert_eq!(
        variable("3:17=a; 4:1=b")
            .unwrap()
            .acknowledged_damage
            .iter()
            .count(),
        2
    );
    for text in ["3:17", "3:17=", "x:1=a", "3=a"] {
        assert!(variable(text).is_err(), "{text}");
    }
}

#[test]
fn every_setting_is_explained() {
    let settings = Settings::from_layers(&Flags::default(), vec![]).unwrap();
    for explained in settings.explain() {
        let has_default = CATALOGUE
            .iter()
            .any(|setting| setting.key == explained.setting && setting.default.is_some());
        assert!(
            !has_default || explained.value.is_some(),
            "{}",
            explained.setting
        );
    }
}

#[test]
fn passwords_are_not_shown() {
    for (url, shown) in [
        ("postgres://a:b@h:1/d", "postgres://a:***@h:1/d"),
        ("postgres://a:b@c@h/d", "postgres://a:***@h/d"),
        ("postgres://h/d", "postgres://h/d"),
        ("postgres://a@h/d", "postgres://a@h/d"),
        (
            "postgres://a:b@h/d?sslmode=require&password=c&x",
            "postgres://a:***@h/d?sslmode=require&password=***&x",
        ),
    ] {
        assert_eq!(without_password(url), shown);
    }
}

#[test]
fn a_cluster_secret_is_long_and_never_shown() {
    let load = |pairs: &[(&str, &str)]| {
        Settings::from_layers(&Flags::default(), variables(pairs)).map_err(|f| f.message)
    };
    let settings = load(&[("ANNALS_CLUSTER_SECRET", "correct horse battery")]).unwrap();
    let shown = format!("{settings:?} {:?}", settings.explain());
    assert!(!shown.contains("horse"), "{shown}");
    let secret = settings.explain().into_iter();
    let secret = { secret }.find(|shown| shown.setting == "cluster_secret");
    assert_eq!(secret.unwrap().value.as_deref(), Some("***"));
    assert!(settings.cluster_secret().unwrap().is_some());

    let refused = load(&[("ANNALS_CLUSTER_SECRET", "horse")]).unwrap_err();
    assert!(refused.contains("ANNALS_CLUSTER_SECRET"), "{refused}");
    assert!(refused.contains("16 bytes"), "{refused}");
    assert!(!refused.contains("horse"), "{refused}");
    assert_eq!(load(&[]).unwrap().cluster_secret().unwrap(), None);
}

#[test]
fn a_cluster_secret_comes_from_a_file_or_a_value_and_not_both() {
    let file = file("correct horse battery\n");
    let path = file.path().to_str().unwrap();
    let load = |pairs: &[(&str, &str)]| Settings::from_layers(&Flags::default(), variables(pairs));
    let of_file = load(&[("ANNALS_CLUSTER_SECRET_FILE", path)]).unwrap();
    let of_value = load(&[("ANNALS_CLUSTER_SECRET", "correct horse battery")]).unwrap();
    let secret = of_file.cluster_secret().unwrap();
    assert!(secret.is_some());
    assert_eq!(secret, of_value.cluster_secret().unwrap());
    let both = [
        ("ANNALS_CLUSTER_SECRET_FILE", path),
        ("ANNALS_CLUSTER_SECRET", "correct horse battery"),
    ];
    assert_eq!(load(&both).unwrap_err().exit, Exit::Usage);
    let short = self::file("horse\n");
    for path in [short.path().to_str().unwrap(), "/nowhere/secret"] {
        let settings = load(&[("ANNALS_CLUSTER_SECRET_FILE", path)]).unwrap();
        let failure = settings.cluster_secret().unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        assert!(failure.message.contains(path), "{}", failure.message);
    }
}

#[test]
fn other_nodes_are_told_an_address_that_they_can_reach() {
    let load = |pairs: &[(&str, &str)]| Settings::from_layers(&Flags::default(), variables(pairs));
    let here = load(&[("ANNALS_ADVERTISE", "localhost:1")]).unwrap();
    assert_eq!(here.advertise.as_deref(), Some("http://localhost:1"));
    let elsewhere = ("ANNALS_ADVERTISE", "http://10.0.0.1:1/");
    let failure = load(&[elsewhere]).unwrap_err();
    assert_eq!(failure.exit, Exit::Usage);
    assert!(failure.message.contains("ANNALS_ADVERTISE"));
    let secret = ("ANNALS_CLUSTER_SECRET", "correct horse battery");
    let settings = load(&[elsewhere, secret]).unwrap();
    let any = "0.0.0.0:7".parse().unwrap();
    assert_eq!(
        settings.address_for_peers(any).unwrap(),
        "http://10.0.0.1:1"
    );
    let silent = load(&[secret]).unwrap();
    assert!(silent.address_for_peers(any).is_err());
    let address = silent.address_for_peers("10.0.0.2:7".parse().unwrap());
    assert_eq!(address.unwrap(), "http://10.0.0.2:7");
    for strange in ["10.0.0.1", "https://10.0.0.1:1", "http://10.0.0.1:1/x"] {
        let failure = load(&[("ANNALS_ADVERTISE", strange), secret]).unwrap_err();
        assert!(failure.message.contains(strange), "{}", failure.message);
    }
}

#[test]
fn broker_settings_are_shown_without_the_password() {
    let environment = variables(&[
        ("ANNALS_KAFKA_SECURITY", "sasl_ssl"),
        ("ANNALS_KAFKA_SASL_USERNAME", "anna"),
        ("ANNALS_KAFKA_SASL_PASSWORD", "open sesame"),
    ]);
    let settings = Settings::from_layers(&Flags::default(), environment).unwrap();
    let explained = settings.explain();
    let value = |key| {
        let found = explained.iter().find(|explained| explained.setting == key);
        found.unwrap().value.as_deref()
    };
    assert_eq!(value("kafka_security"), Some("sasl_ssl"));
    assert_eq!(value("kafka_sasl_mechanism"), Some("SCRAM-SHA-512"));
    assert_eq!(value("kafka_sasl_username"), Some("anna"));
    assert_eq!(value("kafka_sasl_password"), Some("***"));
    assert_eq!(value("kafka_sasl_password_file"), None);
    assert!(!format!("{settings:?} {explained:?}").contains("sesame"));
}

#[test]
fn settings_of_brokers_that_do_not_fit_together_name_their_place() {
    for (value, shown) in [
        ("plaintext", "variable ANNALS_KAFKA_SASL_PASSWORD"),
        ("sasl_ssl", "kafka_sasl_username is missing"),
        ("sasl", "ANNALS_KAFKA_SECURITY"),
    ] {
        let environment = variables(&[
            ("ANNALS_KAFKA_SECURITY", value),
            ("ANNALS_KAFKA_SASL_PASSWORD", "open sesame"),
        ]);
        let failure = Settings::from_layers(&Flags::default(), environment).unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        assert!(failure.message.contains(shown), "{}", failure.message);
        assert!(!failure.message.contains("sesame"), "{}", failure.message);
    }
}
