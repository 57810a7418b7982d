use super::*;

fn target(origin: &str) -> config::TargetSettings {
    config::TargetSettings {
        name: "orders".into(),
        origin: origin.into(),
        path_prefix: None,
        in_flight_max: None,
        rate_per_second: Some(0),
        attempts_max: Some(0),
        connect_timeout_ms: None,
        response_timeout_ms: Some(7),
        attempt_timeout_ms: None,
        body_always: true,
        secret_header: None,
    }
}

#[test]
fn a_targets_entry_wins_and_what_it_leaves_out_is_as_for_all() {
    let mut config = Config::default();
    config.targets.push(target("HTTPS://Orders.example:443/"));
    let settings = Settings::new(&config, &[]).unwrap();
    let orders = TargetId::of("https://orders.example/new");
    let orders = settings.target(&orders);
    assert_eq!(orders.response_timeout, Duration::from_millis(7));
    assert_eq!(orders.in_flight_max, config.dispatch.in_flight_max);
    assert_eq!(orders.attempts_max, 1, "a record is called at least once");
    assert_eq!(orders.interval, Some(Duration::from_secs(1)));
    assert_eq!(settings.other_targets.interval, None);
    config.targets[0].rate_per_second = None;
    config.dispatch.rate_per_second = Some(4);
    let settings = Settings::new(&config, &[]).unwrap();
    let quarter = Some(Duration::from_millis(250));
    assert!(settings.targets.values().all(|own| own.interval == quarter));
    assert_eq!(settings.other_targets.interval, quarter);
}

#[test]
fn every_setting_that_cannot_be_used_is_named() {
    let mut config = Config::default();
    for origin in [
        "http://a/path",
        "a:80",
        "http://b",
        "http://b:80",
        "http://u@c",
    ] {
        config.targets.push(target(origin));
    }
    config.outcomes.insert("40x".into(), "default".into());
    config.dispatch.ca_file = Some("/nowhere/ca.pem".into());
    config.targets[2].secret_header = Some("no name".into());
    let invalid = Settings::new(&config, &[]).unwrap_err();
    let keys: Vec<_> = invalid.iter().map(|wrong| wrong.key.as_str()).collect();
    assert_eq!(
        keys,
        [
            "outcomes.40x",
            "targets.0.origin",
            "targets.1.origin",
            "targets.2.secret_header",
            "targets.3.origin",
            "targets.4.origin",
            "dispatch.ca_file",
        ]
    );
}
