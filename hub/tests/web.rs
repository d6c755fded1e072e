//! The pages over real HTTPS: who may see what, what is on them, and how soon news is there.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test says what it expected by failing"
)]

mod web_house;

use std::time::Duration;

use scc_common::record::{Cause, DeviceKind, State};
use scc_hub::ingest::{Aside, Status, Trouble, TroubleKind};
use web_house::client::{Browser, between};
use web_house::{House, NOW, RSUD_PICTURE, VILLA_PICTURE, device_state, trouble};

/// Every route that shows something, with what an operator, RSUD's own user and a stranger get.
const ROUTES: [(&str, u16, u16, u16); 45] = [
    ("/", 200, 200, 303),
    ("/lokasi", 200, 200, 303),
    ("/lokasi/rsud", 200, 200, 303),
    ("/lokasi/villa-yuliana", 200, 404, 303),
    ("/lokasi/sma1-watansoppeng", 200, 404, 303),
    ("/lokasi/nirwana", 404, 404, 303),
    ("/absensi", 200, 200, 303),
    ("/masuk", 303, 303, 200),
    ("/media/1", 200, 200, 401),
    ("/media/2", 200, 404, 401),
    ("/media/9999", 404, 404, 401),
    ("/media/satu", 400, 400, 401),
    ("/media/kini/rsud/igd-depan", 404, 404, 401),
    ("/media/kini/villa-yuliana/halaman", 404, 404, 401),
    ("/events?di=lokasi/villa-yuliana", 0, 404, 401),
    ("/events?di=lokasi/nirwana", 404, 404, 401),
    ("/events", 400, 400, 401),
    ("/api/v1/overview", 200, 200, 401),
    ("/api/v1/sites", 200, 200, 401),
    ("/api/v1/sites/rsud", 200, 200, 401),
    ("/api/v1/sites/villa-yuliana", 200, 404, 401),
    ("/api/v1/sites/rsud/devices", 200, 200, 401),
    ("/api/v1/sites/villa-yuliana/devices", 200, 404, 401),
    ("/api/v1/sites/rsud/punches", 200, 200, 401),
    ("/api/v1/sites/rsud/punches?day=kemarin", 400, 400, 401),
    ("/api/v1/sites/damkar-lalabata/punches", 200, 404, 401),
    ("/api/v1/sites/rsud/receipt", 200, 200, 401),
    ("/api/v1/sites/rsud/pictures", 200, 200, 401),
    ("/api/v1/sites/villa-yuliana/pictures", 200, 404, 401),
    ("/api/v1/sites/villa-yuliana/receipt", 200, 404, 401),
    ("/api/v1/sites/rsud/receipt?day=2026-11-23", 200, 200, 401),
    ("/api/v1/sites/rsud/receipt?day=2026-11-25", 400, 400, 401),
    ("/api/v1/sites/rsud/receipt.csv", 200, 200, 401),
    ("/api/v1/sites/rsud/receipt.csv?day=kemarin", 400, 400, 401),
    ("/api/v1/sites/villa-yuliana/receipt.csv", 200, 404, 401),
    ("/lokasi/rsud/tanda-terima/2026-11-23", 200, 200, 303),
    ("/lokasi/rsud/tanda-terima/kemarin", 400, 400, 303),
    (
        "/lokasi/villa-yuliana/tanda-terima/2026-11-23",
        200,
        404,
        303,
    ),
    ("/lokasi/rsud/tanda-terima?hari=2026-11-23", 303, 303, 303),
    ("/lokasi/villa-yuliana/tanda-terima", 303, 404, 303),
    (
        "/events?di=tanda-terima/villa-yuliana/2026-11-23",
        0,
        404,
        401,
    ),
    ("/api/v1/openapi.json", 200, 200, 401),
    ("/healthz", 200, 200, 200),
    // the test is a loopback peer, as Prometheus on the hub is
    ("/metrics", 200, 200, 200),
    ("/wp-login.php", 404, 404, 404),
];

#[tokio::test]
async fn every_route_answers_every_role_as_the_table_says() {
    let house = House::build().await;
    let mut operator = Browser::of(&house, "meja-2").await;
    let mut agency = Browser::of(&house, "rsud").await;
    let mut stranger = Browser::new(&house);
    let mut wrong = Vec::new();
    for (path, to_operator, to_agency, to_stranger) in ROUTES {
        for (who, browser, expected) in [
            ("operator", &mut operator, to_operator),
            ("agency", &mut agency, to_agency),
            ("stranger", &mut stranger, to_stranger),
        ] {
            // 0: an endless stream, tested elsewhere
            if expected > 0 {
                let answer = browser.get(path).await;
                if answer.status != expected {
                    wrong.push(format!(
                        "{who} {path}: {} instead of {expected}",
                        answer.status
                    ));
                }
                let policy = answer.header("content-security-policy").unwrap_or_default();
                assert!(
                    policy.starts_with("default-src 'none'"),
                    "{path}: {}",
                    answer.head
                );
                assert!(
                    answer.header("strict-transport-security").is_some(),
                    "{path}"
                );
                assert_eq!(
                    answer.header("x-content-type-options"),
                    Some("nosniff"),
                    "{path}"
                );
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn another_agencys_site_is_nowhere_in_what_an_agency_user_gets() {
    let house = House::build().await;
    let mut agency = Browser::of(&house, "rsud").await;
    for path in [
        "/",
        "/lokasi",
        "/lokasi/rsud",
        "/absensi",
        "/api/v1/sites",
        "/api/v1/overview",
    ] {
        let text = agency.get(path).await.text();
        for other in [
            "Villa",
            "villa",
            "Damkar",
            "damkar",
            "Pemadam",
            "SMA 1",
            "belum terdaftar",
        ] {
            assert!(!text.contains(other), "{path} names {other}");
        }
    }
    let missing = agency.get("/lokasi/nirwana").await.text();
    let others = agency.get("/lokasi/villa-yuliana").await.text();
    assert_eq!(
        missing, others,
        "another's site must look like no site at all"
    );
}

#[tokio::test]
async fn the_overview_opens_with_what_waits_and_counts_from_the_register() {
    let house = House::build().await;
    let page = Browser::of(&house, "meja-2").await.get("/").await.text();
    for words in [
        "2 hal menunggu tindakan. 1 lokasi belum pernah jalan. \
         1 lokasi belum diketahui keadaannya. Selebihnya berjalan.",
        "RSUD · kamera Apotek",
        "Tidak menjawab di alamatnya.",
        "sejak 08.55",
        "2 <span class=\"of\">/ 5</span>",
        "belum terdaftar 7",
        "1 <span class=\"of\">/ 3</span>",
        "09.42.17",
        "WITA",
        "Selasa, 24 November 2026",
    ] {
        assert!(page.contains(words), "no {words}");
    }
    assert!(
        !page.contains("style=\""),
        "the policy forbids inline styles"
    );
}

#[tokio::test]
async fn a_site_page_shows_age_proof_and_punches() {
    let house = House::build().await;
    let mut operator = Browser::of(&house, "meja-2").await;
    let page = operator.get("/lokasi/rsud").await.text();
    for words in [
        "src=\"/media/1\"",
        "diambil 09.42.08",
        ">9 dtk<",
        "mesin 5 / pusat 3",
        "mesin 12 / pusat 12",
        "jam mesin terlambat 6 mnt",
        "Celah 3 cuplikan",
        "bagian kartu rusak",
        "07.31.17",
        "nomor 111",
        "Kerjakan dahulu: kamera Apotek",
    ] {
        assert!(page.contains(words), "no {words}");
    }
    // snapshots: 2 stored today + 4 queued + 3 lost
    assert!(
        page.contains("<td>9</td><td>2</td><td>4</td><td>3</td><td>0</td>"),
        "the receipt does not add up"
    );
    let villa = operator.get("/lokasi/villa-yuliana").await.text();
    assert!(
        villa.contains("pic stale") && villa.contains("lama · 09.32.17"),
        "a stale picture passes for a fresh one"
    );
    let school = operator.get("/lokasi/sma1-watansoppeng").await.text();
    assert!(
        school.contains("Belum pernah mengirim gambar")
            && school.contains("belum pernah tersambung")
    );
    let picture = operator.get(&format!("/media/{RSUD_PICTURE}")).await;
    assert_eq!(picture.header("content-type"), Some("image/jpeg"));
    assert_eq!(&picture.body[..2], b"\xff\xd8");
    assert_eq!(VILLA_PICTURE, 2);
}

#[tokio::test]
async fn the_receipt_says_whether_the_box_has_told_how_far_it_has_numbered() {
    let house = House::build().await;
    let mut operator = Browser::of(&house, "meja-2").await;
    let untold = "Sejak 00.00 kotak belum melaporkan nomor catatan terakhirnya";
    assert!(operator.get("/lokasi/rsud").await.text().contains(untold));
    let receipt = operator.get("/api/v1/sites/rsud/receipt").await.text();
    assert!(receipt.contains("\"told_at_ms\":null"), "{receipt}");
    let bound = Duration::from_secs(10);
    let mut events = operator.events("/events?di=lokasi/rsud").await;
    events.until(&["event: beat"], bound).await;
    // yesterday's number says nothing of today, whatever time the box believes it is
    house.told("rsud", NOW - 86_400_000);
    house.health("rsud", NOW - 120_000);
    events.until(&["\"id\":\"box\""], bound).await;
    assert!(operator.get("/lokasi/rsud").await.text().contains(untold));
    // nor does a box whose clock is a day late lose what it has told
    house.told("rsud", NOW - 60_000);
    house.health("rsud", NOW - 86_400_000);
    let told = "Kotak melaporkan nomor catatan terakhirnya pada 09.41";
    events.until(&[told], bound).await;
    let receipt = operator.get("/api/v1/sites/rsud/receipt").await.text();
    assert!(receipt.contains(&format!("\"told_at_ms\":{}", NOW - 60_000)));
}

#[tokio::test]
async fn a_time_that_is_not_as_its_box_told_it_is_marked_with_words_and_told_in_three_forms() {
    let house = House::build().await;
    let mut operator = Browser::of(&house, "meja-2").await;
    let right = operator.get("/lokasi/rsud").await.text();
    assert!(!right.contains("time-mark"), "a confirmed time needs none");
    house.wrong_clocks();
    let corrected = operator.get("/lokasi/rsud").await.text();
    assert!(corrected.contains("waktu dikoreksi"), "{corrected}");
    assert!(corrected.contains(r#"data-q="corrected""#));
    let told = corrected.contains("1 catatan waktunya dikoreksi");
    assert!(told, "the receipt does not say it: {corrected}");
    let unknown = operator.get("/lokasi/villa-yuliana").await.text();
    assert!(unknown.contains("waktu tidak pasti"), "{unknown}");
    assert!(unknown.contains("1 catatan tidak pasti kapan diambil"));
    let answer = operator.get("/api/v1/sites/rsud/pictures").await.text();
    let three = format!(
        "\"captured_ms\":{0},\"told_ms\":60000,\"corrected_ms\":{0},\"quality\":\"corrected\"",
        NOW - 9_000
    );
    assert!(answer.contains(&three), "{answer}");
    let answer = operator
        .get("/api/v1/sites/villa-yuliana/pictures")
        .await
        .text();
    assert!(answer.contains(r#""corrected_ms":null,"quality":"unknown""#));
    let receipt = operator.get("/api/v1/sites/rsud/receipt").await.text();
    assert!(
        receipt.contains(r#""corrected":1,"undated":0"#),
        "{receipt}"
    );
}

#[tokio::test]
async fn attendance_calls_nobody_absent() {
    let house = House::build().await;
    let page = Browser::of(&house, "meja-2")
        .await
        .get("/absensi")
        .await
        .text();
    for words in [
        "15 scan hari ini dari 2 mesin. 1 mesin terbaca sebagian. 1 mesin belum terbaca",
        "5 / 3",
        "? / 0",
        "belum pernah jalan",
        // a machine that nobody has read has not counted to zero
        "data-label=\"Scan\">?<",
        "1 dari 2 mesin lengkap",
        "0 dari 1 mesin lengkap",
    ] {
        assert!(page.contains(words), "no {words}");
    }
}

#[tokio::test]
async fn the_english_page_is_english() {
    let house = House::build().await;
    let mut operator = Browser::of(&house, "meja-2").await;
    let answer = operator.get("/bahasa/en?ke=/").await;
    assert_eq!((answer.status, answer.header("location")), (303, Some("/")));
    let page = operator.get("/").await.text();
    assert!(
        page.contains(
            "2 things need action. 1 site never ran. The state of 1 site is not known yet. \
             The rest is running."
        ),
        "{page}"
    );
    assert!(page.contains("<html lang=\"en\"") && page.contains("09:42:17"));
    for word in ["sejak", "belum", "kamera ", "Lokasi"] {
        assert!(!page.contains(word), "{word} is not English");
    }
}

#[tokio::test]
async fn news_is_on_an_open_page_within_two_seconds() {
    let house = House::build().await;
    let operator = Browser::of(&house, "meja-2").await;
    let bound = Duration::from_secs(10);
    let mut events = operator.events("/events?di=ringkasan").await;
    events
        .until(&["event: part", "event: beat", "kamera Apotek"], bound)
        .await;

    // a camera comes back
    house.now(
        "rsud",
        vec![device_state("apotek", DeviceKind::Camera, State::Up, None)],
    );
    let (_, took) = events.until(&["1 hal menunggu tindakan"], bound).await;
    assert!(took < Duration::from_secs(2), "it took {took:?}");

    // another goes
    house.now(
        "villa-yuliana",
        vec![device_state(
            "halaman",
            DeviceKind::Camera,
            State::Down,
            Some(Cause::Unauthorized),
        )],
    );
    let (_, took) = events
        .until(&["Nama pengguna atau kata sandi ditolak"], bound)
        .await;
    assert!(took < Duration::from_secs(2), "it took {took:?}");

    // the hub itself fails, and is well again
    house.ingest_fails();
    let (_, took) = events.until(&["Pusat tidak dapat menyimpan"], bound).await;
    assert!(took < Duration::from_secs(2), "it took {took:?}");
    house.hub_status(Status::default());
    let (_, took) = events.until(&[r#""id":"hub""#, "Selebihnya"], bound).await;
    assert!(took < Duration::from_secs(2), "it took {took:?}");
}

#[tokio::test]
async fn a_broken_link_makes_devices_unknown_and_not_down() {
    let house = House::build().await;
    let mut operator = Browser::of(&house, "meja-2").await;
    let mut events = operator.events("/events?di=lokasi/rsud").await;
    events
        .until(&["event: beat"], Duration::from_secs(10))
        .await;
    house.presence("rsud", false);
    // a moment away is no outage
    events
        .until(&["terputus sejenak"], Duration::from_secs(10))
        .await;
    house.clock.advance(11_000);
    events
        .until(&["putus sejak 09.42"], Duration::from_secs(10))
        .await;
    let site = operator.get("/api/v1/sites/rsud").await.json();
    assert_eq!(
        (site["state"].as_str(), site["cause"].as_str()),
        (Some("down"), Some("link"))
    );
    let devices = operator.get("/api/v1/sites/rsud/devices").await.json();
    for device in devices.as_array().unwrap() {
        assert_eq!(device["state"], "unknown", "{device}");
    }
    house.presence("rsud", true);
    events
        .until(&["tersambung sejak"], Duration::from_secs(10))
        .await;
}

#[tokio::test]
async fn a_register_that_is_applied_shows_without_a_restart() {
    let house = House::with_register(None).await;
    let mut operator = Browser::of(&house, "meja-2").await;
    assert!(
        operator
            .get("/")
            .await
            .text()
            .contains("Register masih kosong.")
    );
    let mut events = operator.events("/events?di=ringkasan").await;
    events
        .until(&["event: beat"], Duration::from_secs(10))
        .await;
    let text = "[fleet]\nname = \"S\"\ntimezone = \"Asia/Makassar\"\ninstalled_cameras = 0\n\
        [[agency]]\nid = \"psc\"\nname = \"PSC\"\n[[site]]\nid = \"psc\"\nagencies = [\"psc\"]\nname = \"Public Safety Center\"\nkind = \"office\"\n";
    let register =
        scc_common::register::Register::parse(std::path::Path::new("f"), text.into()).unwrap();
    house
        .store
        .apply(register, "test".into(), web_house::NOW)
        .await
        .unwrap();
    events
        .until(&["Public Safety Center"], Duration::from_secs(10))
        .await;
}

#[tokio::test]
async fn login_is_guarded() {
    let house = House::build().await;
    let mut browser = Browser::new(&house);
    // a form that is not ours
    let answer = browser
        .post("/masuk", "nama=meja-2&sandi=kopi+susu+gula+aren&csrf=x")
        .await;
    assert_eq!(answer.status, 403);
    // the wrong password and the wrong name read the same
    let wrong = browser.log_in("meja-2", "salah sekali").await;
    let unknown = browser.log_in("siapa", "salah sekali").await;
    assert_eq!((wrong.status, unknown.status), (401, 401));
    let words =
        |a: &web_house::client::Answer| between(&a.text(), "role=\"alert\">", "</p>").to_owned();
    assert_eq!(words(&wrong), words(&unknown));
    // the sixth try for one name waits, even with the right password; another name does not
    for _ in 0..4 {
        browser.log_in("meja-2", "salah sekali").await;
    }
    assert_eq!(
        browser.log_in("meja-2", web_house::PASSWORD).await.status,
        429
    );
    assert_eq!(
        browser.log_in("rsud", web_house::PASSWORD).await.status,
        303
    );
    let tries: i64 = house
        .database()
        .query_row(
            "SELECT count(*) FROM audit WHERE action = 'login refused'",
            [],
            |r| r.get(0),
        )
        .unwrap();
    assert_eq!(tries, 6);
}

#[tokio::test]
async fn a_session_is_a_secret_cookie_that_ends() {
    let house = House::build().await;
    let mut operator = Browser::new(&house);
    let answer = operator.log_in("meja-2", web_house::PASSWORD).await;
    let cookie = answer
        .head
        .lines()
        .find(|l| l.contains("__Host-scc="))
        .unwrap();
    for part in ["; Path=/", "; Secure", "; HttpOnly", "; SameSite=Lax"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    let token = operator.cookies["__Host-scc"].clone();
    let stored: Vec<u8> = house
        .database()
        .query_row("SELECT token_sha256 FROM session", [], |r| r.get(0))
        .unwrap();
    assert_eq!(stored.len(), 32);
    assert!(
        !token
            .as_bytes()
            .windows(8)
            .any(|w| stored.windows(8).any(|s| s == w))
    );

    // without the form's secret nobody is logged out
    assert_eq!(operator.post("/keluar", "csrf=falsch").await.status, 403);
    assert_eq!(operator.get("/").await.status, 200);
    let page = operator.get("/").await.text();
    let csrf = between(&page, "name=\"csrf\" value=\"", "\"").to_owned();
    assert_eq!(
        operator
            .post("/keluar", &format!("csrf={csrf}"))
            .await
            .status,
        303
    );
    operator.cookies.insert("__Host-scc".into(), token);
    assert_eq!(
        operator.get("/").await.status,
        303,
        "a session that has ended still opens"
    );

    // a new password ends every session, and twelve idle hours do
    let mut other = Browser::of(&house, "rsud").await;
    let phc = scc_hub::web::password::hash("sandi yang baru").unwrap();
    house
        .store
        .set_password("rsud".into(), phc, web_house::NOW)
        .await
        .unwrap();
    assert_eq!(other.get("/").await.status, 303);
    let mut idle = Browser::of(&house, "meja-2").await;
    house.clock.advance(12 * 3_600_000 + 1_000);
    assert_eq!(idle.get("/").await.status, 303);
}

#[tokio::test]
async fn health_is_told_when_ingest_cannot_store() {
    let house = House::build().await;
    let mut stranger = Browser::new(&house);
    assert_eq!(stranger.get("/healthz").await.text(), "ok\n");
    house.ingest_fails();
    assert_eq!(stranger.get("/healthz").await.status, 503);
}

#[tokio::test]
async fn what_is_aside_is_for_operators_to_copy_and_is_what_a_full_disk_may_lose() {
    let house = House::build().await;
    let mut operator = Browser::of(&house, "meja-2").await;
    let mut agency = Browser::of(&house, "rsud").await;
    let aside = Aside {
        folder: "/var/lib/scc-hub/media/aside".into(),
        files: 1_234,
        bytes: 5_600_000,
        since_ms: 1_793_491_200_000,
        removed_from_ms: 1_796_169_600_000,
        each: "2026-11-01: 1234 files".into(),
    };
    house.hub_status(Status {
        aside: Some(aside),
        ..Status::default()
    });
    let page = operator.get("/").await.text();
    for words in [
        "Ada gambar dan rekaman tanpa catatan",
        "1.234 berkas (5,6 MB)",
        "/var/lib/scc-hub/media/aside",
        "mulai Rabu, 2 Desember 2026",
        "Salin yang masih diperlukan",
        "2026-11-01: 1234 files",
    ] {
        assert!(page.contains(words), "no {words}");
    }
    assert!(!agency.get("/").await.text().contains("tanpa catatan"));
    operator.get("/bahasa/en").await;
    let page = operator.get("/").await.text();
    assert!(page.contains("1,234 files (5.6 MB)") && page.contains("Copy what is needed"));

    let full = |kind| {
        house.hub_status(Status {
            media: Some(Trouble {
                kind,
                ..trouble("12 bytes are free")
            }),
            ..Status::default()
        });
    };
    full(TroubleKind::Full);
    assert!(operator.get("/").await.text().contains("the folder aside/"));
    full(TroubleKind::Failing);
    assert!(!operator.get("/").await.text().contains("the folder aside/"));
}

#[tokio::test]
async fn the_hubs_own_trouble_is_on_every_page_and_counts_against_no_site() {
    let house = House::build().await;
    let mut operator = Browser::of(&house, "meja-2").await;
    let mut agency = Browser::of(&house, "rsud").await;
    let full = "the disk of the database is full";
    house.hub_status(Status {
        database: Some(trouble(full)),
        ..Status::default()
    });
    for path in ["/", "/lokasi", "/lokasi/rsud", "/absensi"] {
        let page = operator.get(path).await.text();
        for words in [
            "Pusat tidak dapat menyimpan data baru",
            "Periksa ruang dan kesehatan disk basis data",
            "sejak 09.40",
            full,
        ] {
            assert!(page.contains(words), "{path}: no {words}");
        }
        let page = agency.get(path).await.text();
        assert!(page.contains("Pusat tidak dapat menyimpan data baru"));
        assert!(!page.contains(full), "what the disk says is for operators");
    }
    let overview = operator.get("/").await.text();
    assert!(
        overview.contains("3 hal menunggu tindakan.") && !overview.contains("Selebihnya berjalan"),
        "a hub that stores nothing does not know how the rest is"
    );
    let site = operator.get("/lokasi/villa-yuliana").await.text();
    assert!(site.contains("tidak dapat menyimpan<"), "the cause chain");
    assert!(site.contains("data-s=\"up\""), "the site is not to blame");
    house.hub_status(Status {
        media: Some(trouble("12 bytes are free")),
        ..Status::default()
    });
    let page = operator.get("/").await.text();
    assert!(page.contains("Gambar dan rekaman ditahan") && page.contains("Selebihnya berjalan"));
    house.hub_status(Status {
        record: Some(trouble("event 2 of epoch 7 from `rsud` cannot be stored")),
        ..Status::default()
    });
    let page = operator.get("/").await.text();
    assert!(page.contains("Sebagian data belum dapat disimpan") && page.contains("event 2 of"));
    assert!(page.contains("3 hal menunggu tindakan.") && page.contains("Selebihnya berjalan"));
    let page = agency.get("/lokasi/rsud").await.text();
    assert!(page.contains("Sebagian data belum dapat disimpan") && !page.contains("event 2 of"));
    assert!(
        page.contains("sebagian belum tersimpan<"),
        "the cause chain"
    );
    assert_eq!(operator.get("/healthz").await.text(), "ok\n");
}

#[tokio::test]
async fn a_certificate_file_that_cannot_be_used_is_on_the_operators_pages_until_it_can() {
    async fn until(browser: &mut Browser<'_>, there: bool) -> String {
        let title = "Berkas sertifikat baru di pusat tidak dapat dipakai";
        for _ in 0..300 {
            let page = browser.get("/lokasi").await.text();
            if page.contains(title) == there {
                return page;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("{title:?}: still not {there}");
    }
    let house = House::build().await;
    let mut operator = Browser::of(&house, "meja-2").await;
    let mut agency = Browser::of(&house, "rsud").await;
    let overview = operator.get("/").await.text();
    assert!(overview.contains("2 hal menunggu tindakan."), "{overview}");
    let good = std::fs::read(house.certificate()).unwrap();
    std::fs::write(house.certificate(), &good[..200]).unwrap();
    let page = until(&mut operator, true).await;
    assert!(
        page.contains("scc-provision") && page.contains("web.pem"),
        "what to do, and where"
    );
    assert!(page.contains("sejak 09.42"));
    let overview = operator.get("/").await.text();
    assert!(
        overview.contains("3 hal menunggu tindakan."),
        "it waits for somebody"
    );
    let page = agency.get("/lokasi").await.text();
    assert!(
        !page.contains("Berkas sertifikat baru"),
        "no agency can do anything about it"
    );
    let page = operator.get("/lokasi/rsud").await.text();
    assert!(
        page.contains("menerima<"),
        "nothing is held up: the cause chain"
    );
    std::fs::write(house.certificate(), good).unwrap();
    until(&mut operator, false).await;
}

#[tokio::test]
async fn a_page_that_breaks_promises_nothing_that_the_hub_does_not_keep() {
    let house = House::build().await;
    let mut operator = Browser::of(&house, "meja-2").await;
    house
        .database()
        .execute("ALTER TABLE terminal_read RENAME TO lost", [])
        .unwrap();
    let unaffected = "Penerimaan data dari lokasi tidak terpengaruh";
    let page = operator.get("/absensi").await;
    assert_eq!(page.status, 500);
    assert!(page.text().contains(unaffected));
    house.ingest_fails();
    let page = operator.get("/absensi").await;
    assert_eq!(page.status, 500);
    assert!(
        page.text()
            .contains("Pusat tidak dapat menyimpan data baru")
    );
    assert!(!page.text().contains(unaffected), "{}", page.text());
}

#[tokio::test]
async fn whatever_is_refused_is_said_on_a_page_of_ours() {
    let house = House::build().await;
    let mut stranger = Browser::new(&house);
    // *Keluar* after the session has ended: the login does not lead back to a form
    let answer = stranger.post("/keluar", "csrf=x").await;
    let to = answer.header("location");
    assert_eq!((answer.status, to), (303, Some("/masuk")));
    let answer = stranger.get("/lokasi").await;
    assert_eq!(answer.header("location"), Some("/masuk?ke=/lokasi"));

    let mut operator = Browser::of(&house, "meja-2").await;
    let answer = operator.get("/keluar").await;
    assert_eq!((answer.status, answer.header("allow")), (405, Some("POST")));
    assert!(answer.text().contains("Permintaan tidak dimengerti"));
    for (path, body, status) in [
        ("/masuk", "nama=meja-2", 422),
        ("/keluar", "", 422),
        ("/lokasi", "", 405),
        ("/masuk?ke=/", "a".repeat(20_000).as_str(), 413),
    ] {
        let answer = operator.post(path, body).await;
        assert_eq!(answer.status, status, "{path}");
        let text = answer.text();
        assert!(
            text.contains("Permintaan tidak dimengerti"),
            "{path}: {text}"
        );
    }
    // a query twice, a path that is no text
    for path in ["/masuk?ke=/&ke=/", "/lokasi/%ff", "/bahasa/%ff"] {
        let answer = operator.get(path).await;
        assert_eq!(answer.status, 400, "{path}");
        assert!(
            answer.text().contains("Permintaan tidak dimengerti"),
            "{path}"
        );
    }
    // programs get what programs read
    let answer = operator.post("/api/v1/sites", "").await;
    assert_eq!(answer.status, 405);
    assert_eq!(answer.json()["error"], "bad request");
}

#[tokio::test]
async fn a_flood_of_connections_stops_no_honest_request() {
    let house = House::build().await;
    let flood_from = "127.0.0.2:0".parse().unwrap();
    let mut flood = Vec::new();
    for _ in 0..300 {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(flood_from).unwrap();
        flood.push(socket.connect(house.address).await.unwrap());
    }
    // 64 places for one address; the rest is closed at once, not after a handshake's patience
    let mut closed = 0;
    for stream in flood.iter_mut().skip(64) {
        let read = tokio::io::AsyncReadExt::read_u8(stream);
        let ended = tokio::time::timeout(Duration::from_secs(5), read).await;
        closed += usize::from(ended.is_ok_and(|byte| byte.is_err()));
    }
    assert_eq!(closed, 236);
    let mut operator = Browser::of(&house, "meja-2").await;
    assert_eq!(operator.get("/").await.status, 200);

    // nor does one session hold more event streams than it has use for
    let bound = Duration::from_secs(10);
    let mut open = Vec::new();
    for _ in 0..16 {
        let mut events = operator.events("/events?di=lokasi").await;
        events.until(&["event: beat"], bound).await;
        open.push(events);
    }
    // one tab more is told everything once, holds no place, and asks again by itself
    for _ in 0..2 {
        let answer = operator.get("/events?di=lokasi").await;
        let text = answer.text();
        assert_eq!(answer.status, 200, "{text}");
        for words in [
            "retry: 5000\n",
            "event: part\n",
            "Villa Yuliana",
            "event: beat\n",
        ] {
            assert!(text.contains(words), "no {words} in {text}");
        }
    }
    // a tab that is closed makes room
    drop(open.pop());
    let again = async {
        loop {
            let mut events = operator.events("/events?di=lokasi").await;
            let (text, _) = events.until(&["event: "], bound).await;
            if !text.contains("retry: ") {
                break;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(bound, again)
        .await
        .expect("room again");
}

#[tokio::test]
async fn a_kept_picture_is_asked_for_each_time() {
    let house = House::build().await;
    let mut operator = Browser::of(&house, "meja-2").await;
    let path = format!("/media/{VILLA_PICTURE}");
    let first = operator.get(&path).await;
    assert_eq!(first.header("cache-control"), Some("private, no-cache"));
    let tag = first.header("etag").unwrap().to_owned();
    operator.kept = Some(tag.clone());
    let again = operator.get(&path).await;
    assert_eq!((again.status, again.body.len()), (304, 0));
    // the next one at the same PC has the picture in the browser, and no right to it
    let mut agency = Browser::of(&house, "rsud").await;
    agency.kept = Some(tag);
    assert_eq!(agency.get(&path).await.status, 404);
}

#[tokio::test]
async fn the_document_describes_every_route_of_the_api() {
    let house = House::build().await;
    let document = Browser::of(&house, "meja-2")
        .await
        .get("/api/v1/openapi.json")
        .await
        .json();
    let paths: Vec<_> = document["paths"]
        .as_object()
        .unwrap()
        .keys()
        .cloned()
        .collect();
    for (route, ..) in ROUTES
        .iter()
        .filter(|r| r.0.starts_with("/api/") && !r.0.contains("openapi"))
    {
        let route = route.split('?').next().unwrap();
        let known = paths.iter().any(|p| {
            let (p, r): (Vec<_>, Vec<_>) = (p.split('/').collect(), route.split('/').collect());
            p.len() == r.len() && p.iter().zip(&r).all(|(p, r)| p == r || p.starts_with('{'))
        });
        assert!(known, "{route} is not in {paths:?}");
    }
}

#[tokio::test]
async fn pages_are_light_and_load_nothing_from_elsewhere() {
    let house = House::build().await;
    let mut operator = Browser::of(&house, "meja-2").await;
    let page = operator.get("/").await.text();
    assert!(page.len() < 150_000, "{}", page.len());
    assert!(!page.contains("http://") && !page.contains("https://") && !page.contains("//cdn"));
    let style = between(&page, "rel=\"stylesheet\" href=\"", "\"").to_owned();
    let answer = operator.get(&style).await;
    assert_eq!(answer.status, 200);
    assert!(
        answer
            .header("cache-control")
            .is_some_and(|c| c.contains("immutable"))
    );
    assert!(!answer.text().contains("@import") && !answer.text().contains("url("));
    assert_eq!(operator.get("/assets/0/scc.css").await.status, 404);
}

#[tokio::test]
async fn a_renewed_certificate_of_the_pages_needs_no_restart() {
    let house = House::build().await;
    assert!(house.is_trusted_by(house.root.clone()).await);
    let renewed = house.renew_certificate();
    let served = async {
        while !house.is_trusted_by(renewed.clone()).await {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let served = tokio::time::timeout(Duration::from_secs(30), served).await;
    served.expect("the new certificate is served");
    assert!(!house.is_trusted_by(house.root.clone()).await);
}
