//! The receipt of a day that is over: its page, its file, and what the hub says when it has lost
//! something.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test says what it expected by failing"
)]

mod web_house;

use rusqlite::params;
use web_house::client::Browser;
use web_house::{House, NOW};

/// Yesterday, 10.00 by the register's zone.
const YESTERDAY: i64 = NOW - 86_400_000;

/// The box of the hospital says that its still lane had come to `next`.
fn tally(house: &House, next: i64) {
    let lane = "SELECT agent, epoch, stream FROM lane WHERE agent = 'rsud' AND stream = 5";
    let sql = format!("INSERT INTO tally SELECT agent, epoch, stream, ?1, ?2, ?2 FROM ({lane})");
    let done = house.database().execute(&sql, params![next, YESTERDAY]);
    assert_eq!(done, Ok(1));
}

#[tokio::test]
async fn a_day_that_is_over_goes_by_the_boxs_own_count_on_the_page_in_the_api_and_in_the_file() {
    let house = House::build().await;
    let mut operator = Browser::of(&house, "meja-2").await;
    let path = "/lokasi/rsud/tanda-terima/2026-11-23";
    let before = operator.get(path).await.text();
    assert!(before.contains("Senin, 23 November 2026"));
    assert!(before.contains("Kotak belum melaporkan hitungannya atas hari itu"));
    tally(&house, 10);
    let page = operator.get(path).await.text();
    assert!(
        page.contains("hitungan kotak sendiri atas hari itu"),
        "{page}"
    );
    let receipt = operator
        .get("/api/v1/sites/rsud/receipt?day=2026-11-23")
        .await
        .json();
    assert_eq!(receipt["basis"], "counted");
    let stills = receipt["streams"]
        .as_array()
        .unwrap()
        .iter()
        .find(|s| s["stream"] == "snapshot")
        .unwrap()
        .clone();
    let number = |name: &str| stills[name].as_u64().unwrap();
    assert_eq!(number("taken"), 9);
    assert_eq!(
        number("stored") + number("queued") + number("lost") + number("missing"),
        9
    );
    let file = operator
        .get("/api/v1/sites/rsud/receipt.csv?day=2026-11-23")
        .await;
    assert_eq!(file.header("content-type"), Some("text/csv; charset=utf-8"));
    assert!(
        file.header("content-disposition")
            .is_some_and(|name| name.contains("tanda-terima_rsud_2026-11-23.csv"))
    );
    let text = file.text();
    let mut lines = text.lines();
    assert_eq!(
        lines.next(),
        Some("site,day,basis,stream,taken,stored,queued,lost,missing,duplicates,gaps")
    );
    let line = format!(
        "rsud,2026-11-23,counted,snapshot,9,{},{},{},{},0,",
        number("stored"),
        number("queued"),
        number("lost"),
        number("missing")
    );
    assert!(
        lines.any(|l| l.starts_with(&line)),
        "no {line:?} in\n{text}"
    );
}

#[tokio::test]
async fn other_days_are_reached_from_the_site_and_no_day_to_come_is_offered() {
    let house = House::build().await;
    let mut operator = Browser::of(&house, "meja-2").await;
    let site = operator.get("/lokasi/rsud").await.text();
    assert!(site.contains("href=\"/lokasi/rsud/tanda-terima/2026-11-24\""));
    assert!(site.contains("href=\"/api/v1/sites/rsud/receipt.csv?day=2026-11-24\""));
    let today = operator
        .get("/lokasi/rsud/tanda-terima/2026-11-24")
        .await
        .text();
    assert!(today.contains("/lokasi/rsud/tanda-terima/2026-11-23\" rel=\"prev\""));
    assert!(!today.contains("rel=\"next\""), "tomorrow has no receipt");
    let other = "/lokasi/rsud/tanda-terima/2026-11-23";
    let page = operator.get(other).await.text();
    assert!(
        !page.contains(&format!("<a href=\"{other}\"")),
        "a page of a day leads to itself"
    );
    // above the receipt and below it
    for (day, rel) in [("22", "prev"), ("24", "next")] {
        let link = format!("href=\"/lokasi/rsud/tanda-terima/2026-11-{day}\" rel=\"{rel}\"");
        assert_eq!(page.matches(&link).count(), 2, "{link}");
    }
    assert!(page.contains("<a href=\"#hari\">Hari lain</a>") && page.contains("id=\"hari\""));
    let chosen = operator
        .get("/lokasi/rsud/tanda-terima?hari=2026-11-20")
        .await;
    assert_eq!(
        chosen.header("location"),
        Some("/lokasi/rsud/tanda-terima/2026-11-20")
    );
}

#[tokio::test]
async fn what_the_hub_has_lost_stands_above_every_page_and_blames_no_site() {
    let house = House::build().await;
    let mut operator = Browser::of(&house, "meja-2").await;
    let mut agency = Browser::of(&house, "rsud").await;
    house.records_are_missing("villa-yuliana 2026-11-23: 3 missing");
    for path in ["/", "/lokasi", "/lokasi/rsud", "/absensi"] {
        let page = operator.get(path).await.text();
        assert!(page.contains("Ada data yang hilang di pusat"), "{path}");
        assert!(
            page.contains("villa-yuliana 2026-11-23: 3 missing"),
            "{path}"
        );
    }
    let page = agency.get("/lokasi/rsud").await.text();
    assert!(page.contains("Ada data yang hilang di pusat"));
    assert!(
        !page.contains("villa-yuliana"),
        "another's site is named to an agency"
    );
    assert_eq!(operator.get("/healthz").await.status, 200);
}
