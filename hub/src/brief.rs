//! Texts that agents say of themselves and of devices, cut to what columns and pages bear. The ledger keeps
//! the body as it came.

use scc_common::record::{Content, DeviceState, Event};

/// Characters of a text: more than any of our own says.
const LONGEST_TEXT: usize = 300;

/// Cuts every text of this content that goes to a column or a page as it is.
pub(crate) fn shorten_all(content: &mut Content) {
    match content {
        Content::Event(Event::DeviceState(state)) => shorten_detail(state),
        Content::Health(health) => {
            shorten(&mut health.version);
            health.devices.iter_mut().for_each(shorten_detail);
        }
        _ => {}
    }
}

/// Cuts what a device is said to be like.
pub(crate) fn shorten_detail(state: &mut DeviceState) {
    if let Some(detail) = &mut state.detail {
        shorten(detail);
    }
}

fn shorten(text: &mut String) {
    if let Some((end, _)) = text.char_indices().nth(LONGEST_TEXT) {
        text.truncate(end);
        text.push('…');
    }
}
