use super::*;

#[test]
fn a_job_is_begun_or_withdrawn_but_never_both() {
    let start = Start::default();
    assert!(start.begin());
    assert!(!start.withdraw() && !start.begin());
    let start = Start::default();
    assert!(start.clone().withdraw());
    assert!(!start.begin());
}

#[test]
fn a_job_whose_call_could_not_begin_can_be_begun_again_and_withdrawn() {
    let start = Start::default();
    for _ in 0..2 {
        assert!(start.begin());
        start.put_back();
        assert!(start.is_waiting());
    }
    assert!(start.withdraw() && !start.begin());
}

#[test]
fn lanes_differ_by_target_and_by_key() {
    let state = RandomState::new();
    let lane = |target, key: &str| {
        let target = TargetId::of(target);
        Lane::new(&state, &target, key.as_bytes())
    };
    assert_eq!(lane("http://a/x", "k"), lane("http://a:80", "k"));
    assert_ne!(lane("http://a", "k"), lane("http://a", "l"));
    assert_ne!(lane("http://a", "k"), lane("http://b", "k"));
}
