use data_encoding::{BASE64, BASE64URL_NOPAD, HEXLOWER, HEXUPPER};

use super::*;

fn kept(secret: &str, body: &[u8]) -> bool {
    let failure = Failure::answered(401, Bytes::copy_from_slice(body), None);
    let reason = failure.reason.clone();
    let clean = redact(failure, [secret.as_bytes()].into_iter());
    match clean.body.is_empty() {
        true => assert_eq!(clean.reason, format!("{reason}{DROPPED}")),
        false => assert_eq!((&clean.body[..], clean.reason), (body, reason)),
    }
    !clean.body.is_empty()
}

#[track_caller]
fn found(secret: &str, body: impl AsRef<[u8]>) {
    let body = body.as_ref();
    assert!(!kept(secret, body), "{}", String::from_utf8_lossy(body));
}

#[track_caller]
fn not_found(secret: &str, body: impl AsRef<[u8]>) {
    let body = body.as_ref();
    assert!(kept(secret, body), "{}", String::from_utf8_lossy(body));
}

const TOKEN: &str = "Bearer dG9r/ZW4tb2Y=tHE+x";

#[test]
fn a_token_is_found_however_it_is_written() {
    let token = &TOKEN[7..];
    found(TOKEN, format!("you sent {token}!"));
    found(TOKEN, format!(r#"{{"sent":"{TOKEN}"}}"#));
    found(TOKEN, token.replace('/', r"\/"));
    found(TOKEN, token.replace('=', r"\u003d").replace('/', r"\u002F"));
    found(TOKEN, token.replace('=', r"\x3d"));
    found(
        TOKEN,
        token
            .replace('=', "%3D")
            .replace('/', "%2f")
            .replace('+', "%2B"),
    );
    found(
        TOKEN,
        token
            .replace('=', "&#61;")
            .replace('/', "&#x2f;")
            .replace('+', "&#x0002B;"),
    );
    // A page that quotes JSON that quotes a header.
    found(TOKEN, token.replace('=', r"\\u003d"));
    found(TOKEN, token.replace('=', "%255Cu003d"));
    found(TOKEN, token.replace('=', "&amp;#61;"));
    let all: String = token.bytes().map(|byte| format!(r"\u{byte:04x}")).collect();
    found(TOKEN, format!(r#"{{"a":"{all}"}}"#));
    // Encoded, alone and among other things.
    for text in [
        token.to_owned(),
        TOKEN.to_owned(),
        format!(r#"{{"a":"{TOKEN}"}}"#),
    ] {
        let text = text.as_bytes();
        found(TOKEN, BASE64.encode(text));
        found(TOKEN, format!("x={}", BASE64URL_NOPAD.encode(text)));
        found(TOKEN, format!("request/{}.", BASE64URL_NOPAD.encode(text)));
        found(TOKEN, HEXLOWER.encode(text));
        found(TOKEN, format!("0{}", HEXUPPER.encode(text)));
        found(
            TOKEN,
            BASE64
                .encode(text)
                .replace('=', r"\u003d")
                .replace('/', r"\/"),
        );
    }
    // A good part of it is enough.
    found(TOKEN, format!("token {}... is not known", &token[..16]));
    not_found(TOKEN, format!("token {}... is not known", &token[..9]));
    not_found(TOKEN, "no such token");
    not_found(TOKEN, "Bearer realm=\"x\", error=\"invalid_token\"");
    assert!(
        redact(
            Failure::answered(500, Bytes::new(), None),
            [TOKEN.as_bytes()].into_iter()
        )
        .reason
        .ends_with("Error")
    );
}

#[test]
fn the_parts_of_a_credential_are_found() {
    let basic = format!("Basic {}", BASE64.encode("robot:pass=wörd".as_bytes()));
    found(&basic, "user robot, password pass=wörd");
    found(&basic, r#"{"password":"pass\u003dw\u00f6rd"}"#);
    found(&basic, &basic[6..]);
    not_found(&basic, "user robot is not known");
    let cookie = "session=8a7b6c5d4e; theme=dark; id=\"q1w2e3r4t5\"";
    found(cookie, "session 8a7b6c5d4e is over");
    found(cookie, "id q1w2e3r4t5");
    // A short part counts as a word of its own.
    found(cookie, "theme 'dark'");
    not_found(cookie, "the darkness");
    let digest =
        r#"Digest username="operations", realm="api.example.com", response="6629fae49393a053""#;
    found(digest, "6629fae49393a053");
    not_found(digest, "operations at api.example.com may not do this");
    // Escapes of its own.
    found("abc%3Ddefgh", "abc%3Ddefgh");
    found("abc%3Ddefgh", "abc=defgh");
    // A short token counts whole.
    found("Bearer abc", "token abc is wrong");
    not_found("Bearer abc", "xabcabcx");
    found("hunter2", "password 'hunter2' is wrong");
    not_found("hunter2", "shunter20");
    not_found("Bearer ", "anything");
    not_found("", "anything");
}

#[test]
fn the_beginning_of_a_token_is_found_where_the_body_was_cut() {
    let filled = |end: &str| ".".repeat(KEPT_BYTES_MAX - end.len()) + end;
    let secret = "Bearer secret=token";
    for end in [
        "secre",
        r"secret\u003dto",
        r"secret\u00",
        "secret%3",
        "secret&#6",
    ] {
        found(secret, filled(end));
        not_found(secret, format!("short {}", &end[..5]));
    }
    not_found(secret, filled("sec"));
    found(
        secret,
        filled(&format!(" {}", &BASE64.encode(secret.as_bytes())[..18])),
    );
}

#[test]
fn a_body_is_dropped_unread_where_the_credentials_are_too_many() {
    let dropped = |secret: String| {
        let failure = Failure::answered(401, Bytes::from_static(b"not you"), None);
        let clean = redact(failure, [secret.as_bytes()].into_iter());
        (clean.body.is_empty(), clean.reason.ends_with(UNREAD))
    };
    let cookie =
        |len: usize| -> String { (0..len).map(|at| format!("n{at}=value-{at};")).collect() };
    assert_eq!(dropped(cookie(2_300)), (true, true));
    assert_eq!(dropped(cookie(PARTS_LEN_MAX)), (true, true));
    // The whole counts as well.
    assert_eq!(dropped(cookie(PARTS_LEN_MAX - 1)), (false, false));
    let token = |len: usize| format!("Bearer {}", "t".repeat(len - 7));
    assert_eq!(dropped(token(SENT_BYTES_MAX)), (false, false));
    assert_eq!(dropped(token(SENT_BYTES_MAX + 1)), (true, true));
    assert_eq!(dropped("t".repeat(8 << 20)), (true, true));
}

#[test]
fn the_work_for_a_body_has_a_bound_that_nobody_moves() {
    // Parts of every length, all of which begin as every byte of every text does.
    let of_len = |len: usize| format!("a{len}={};", "A".repeat(len));
    let cookie: String = (1..=15).map(of_len).collect();
    let long = format!("{}b", "A".repeat(15_000));
    let sent = [cookie.as_bytes(), long.as_bytes()];
    let parts = all_parts(sent.into_iter()).unwrap();
    let mut most = 0;
    for body in [
        "A".repeat(KEPT_BYTES_MAX),
        "\\u0041".repeat(KEPT_BYTES_MAX / 6),
        "%2541".repeat(KEPT_BYTES_MAX / 5),
        "QUFB".repeat(KEPT_BYTES_MAX / 4),
        "AAAAAA.".repeat(KEPT_BYTES_MAX / 7),
        "z".repeat(KEPT_BYTES_MAX),
    ] {
        for kept in 0..2 {
            let mut sought = Sought::new(&parts);
            if kept == 1 {
                // Nothing is ever found, so nothing ends the work early.
                sought.pieces.clear();
                sought.beginnings.clear();
                sought.firsts = [true; 256];
                sought.lens = (1..=WINDOW_BYTES).collect();
            }
            holds(body.as_bytes(), &sought);
            most = most.max(sought.lookups.get());
        }
    }
    assert!(most > 10 * KEPT_BYTES_MAX, "{most}");
    assert!(
        most <= (ROUNDS + 1) * 5 * KEPT_BYTES_MAX * WINDOW_BYTES,
        "{most}"
    );
}

#[test]
fn nothing_makes_it_fail() {
    for body in [
        &b"\\"[..],
        b"%",
        b"&",
        b"&#",
        b"&#x;",
        b"&#99999999;",
        b"\\u12",
        b"\\ud800",
        b"%zz",
        b"\xff\xfe%ff",
        b"====",
        b"\\",
    ] {
        for secret in [
            "Basic ====",
            "Basic !",
            "=",
            ";;=;",
            "\\u0041\\u0041",
            "%",
            "Bearer \\",
        ] {
            // Whether it is found does not matter here.
            kept(secret, body);
        }
    }
}
