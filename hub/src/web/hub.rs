//! The hub's own trouble, above everything else on every page: whoever reads a number must know that
//! the hub does not take in new ones, and that this counts against no site. What holds nothing up yet and
//! has to be done all the same is for those who run the hub.

use askama::Template;
use scc_common::clock::WallMs;
use scc_common::record::State;

use crate::ingest::{Aside, Trouble, TroubleKind};

use super::page::Part;
use super::session::Viewer;
use super::text::T;
use super::{App, Refused};

/// What the hub cannot do at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    /// It takes nothing in: ingest has ended, and the hub is about to be started again.
    Intake,
    /// The database stores nothing.
    Database,
    /// Something that came cannot be stored in any form.
    Record,
    /// Pictures and video are paused.
    Media,
    /// Records that were acknowledged are not in the database.
    Missing,
    /// The database stores everything and takes long for it.
    Slow,
    /// New certificate files cannot be used.
    Files,
    /// A certificate or list has to be replaced because of its date.
    Ending,
    /// Media files that no record refers to are kept aside for a while.
    Aside,
}

impl What {
    /// What is only to be done, and holds up nothing.
    #[cfg(test)]
    pub(crate) const TO_DO: [Self; 3] = [Self::Files, Self::Ending, Self::Aside];

    /// Each of the others, for a test that every one has its words.
    #[cfg(test)]
    pub(crate) const ALL: [Self; 6] = [
        Self::Intake,
        Self::Database,
        Self::Record,
        Self::Media,
        Self::Missing,
        Self::Slow,
    ];

    /// Whether nothing new at all is stored, so that what is on screen is of the past.
    pub(crate) const fn is_blind(self) -> bool {
        matches!(self, Self::Intake | Self::Database)
    }

    /// As one of the six states.
    pub(crate) const fn state(self) -> State {
        if self.is_blind() {
            State::Down
        } else {
            State::Degraded
        }
    }

    /// The middle of its keys in the language files.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Intake => "intake",
            Self::Database => "database",
            Self::Record => "record",
            Self::Media => "media",
            Self::Missing => "missing",
            Self::Slow => "slow",
            Self::Files => "files",
            Self::Ending => "ending",
            Self::Aside => "aside",
        }
    }
}

/// One trouble of the hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HubTrouble {
    pub(crate) what: What,
    /// What the system said, English; for operators.
    pub(crate) why: String,
    pub(crate) kind: TroubleKind,
    /// None: not known.
    pub(crate) since_ms: Option<WallMs>,
    /// With [`What::Aside`]: how much, where and until when.
    pub(crate) aside: Option<Aside>,
}

impl HubTrouble {
    /// What it means, in the reader's words.
    pub(crate) fn means(&self, t: &T) -> String {
        let key = format!("hub-{}-what", self.what.name());
        let Some(aside) = &self.aside else {
            return t.s(&key);
        };
        let args = [
            ("files", t.int(aside.files).into()),
            ("size", t.bytes(aside.bytes).into()),
            ("folder", aside.folder.display().to_string().into()),
            ("day", t.day_long(aside.removed_from_ms).into()),
        ];
        t.with(&key, &args)
    }

    /// The key of what an operator does about it: by its kind where that says more than what it is.
    pub(crate) fn remedy(&self) -> String {
        let what = self.what.name();
        match (self.what, self.kind.name()) {
            (What::Database, Some(kind)) | (What::Media, Some(kind @ "full")) => {
                format!("hub-{what}-remedy-{kind}")
            }
            _ => format!("hub-{what}-remedy"),
        }
    }
}

impl App {
    /// What is wrong with the hub itself and holds something up, worst first.
    pub(crate) fn hub_trouble(&self) -> Vec<HubTrouble> {
        if self.ingest.has_changed().is_err() {
            return vec![HubTrouble {
                what: What::Intake,
                why: String::new(),
                kind: TroubleKind::Other,
                since_ms: None,
                aside: None,
            }];
        }
        let (status, missing) = (self.ingest.borrow(), self.missing.borrow());
        let each = [
            (What::Database, &status.database),
            (What::Record, &status.record),
            (What::Media, &status.media),
            (What::Missing, &*missing),
            (What::Slow, &status.slow),
        ];
        those(each)
    }

    /// What those who run the hub have to do although nothing waits for it.
    pub(crate) fn hub_to_do(&self) -> Vec<HubTrouble> {
        let (unusable, ending) = (self.files.all_unusable(), self.files.all_ending());
        let mut to_do = those([(What::Files, &unusable), (What::Ending, &ending)]);
        to_do.extend(self.ingest.borrow().aside.clone().map(|aside| HubTrouble {
            what: What::Aside,
            why: aside.each.clone(),
            kind: TroubleKind::Other,
            since_ms: Some(aside.since_ms),
            aside: Some(aside),
        }));
        to_do
    }
}

fn those<const N: usize>(each: [(What, &Option<Trouble>); N]) -> Vec<HubTrouble> {
    each.into_iter()
        .filter_map(|(what, trouble)| {
            trouble.as_ref().map(|trouble| HubTrouble {
                what,
                why: trouble.why.clone(),
                kind: trouble.kind,
                since_ms: Some(trouble.since_ms),
                aside: None,
            })
        })
        .collect()
}

#[derive(Template)]
#[template(path = "hub.html")]
struct HubPart<'a> {
    t: &'a T,
    troubles: Vec<HubTrouble>,
    operator: bool,
}

/// The parts of a page with the hub's own trouble above them; an empty part while there is none.
pub(crate) fn on_top(
    app: &App,
    t: &T,
    viewer: &Viewer,
    mut parts: Vec<Part>,
) -> Result<Vec<Part>, Refused> {
    let operator = viewer.is_operator();
    let mut troubles = app.hub_trouble();
    if operator {
        troubles.extend(app.hub_to_do());
    }
    let hub = HubPart {
        t,
        troubles,
        operator,
    };
    parts.insert(0, Part::new("hub", &hub)?);
    Ok(parts)
}
