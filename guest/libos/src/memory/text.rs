//! Program text in large pages: what the host may map by one large page rather than by 512 small ones in a snapshot.
//!
//! On a host without nested paging each small page costs a fault in every clone when it is first used, and a runtime's text
//! and constants are most of what a clone uses. That of libraries lies beside their data within a large page; that of the
//! program itself is mostly longer than that.

use alloc::vec::Vec;

use spore_abi::layout::{LARGE_PAGE_BYTES, TEXT_PAGES_MAX};
use spore_abi::pages::TextOffer;

use super::areas::{Area, Backing, Protection};
use super::space::AddressSpace;

impl AddressSpace {
    /// Offers the large pages that hold nothing but files' pages that cannot be written to, whichever of them can be
    /// executed: together they can, if one can. Pages that were not touched yet are filled for that.
    pub(crate) fn offer_text(&mut self) -> Vec<TextOffer> {
        let mut offers = Vec::new();
        for page in self.text_pages() {
            if offers.len() >= TEXT_PAGES_MAX {
                break;
            }
            // Without tables for it, or where the file ends, it stays as it is.
            if self.populate(page, page + LARGE_PAGE_BYTES, false).is_ok()
                && let Ok(Some(offer)) = self.tables.offer(page)
            {
                offers.push(offer);
            }
        }
        offers
    }

    /// Addresses of the large pages in question, in order.
    fn text_pages(&self) -> Vec<u64> {
        let mut pages = Vec::new();
        let mut next = 0;
        // Where the stretch of such areas began that ends at `end`.
        let (mut start, mut end) = (0, 0);
        for (from, area) in self.areas.iter() {
            if !is_text(area) {
                continue;
            }
            if from != end {
                start = from;
            }
            end = area.end;
            let first = start.checked_next_multiple_of(LARGE_PAGE_BYTES).unwrap_or(end);
            let mut page = first.max(next);
            while page < end && end - page >= LARGE_PAGE_BYTES {
                pages.push(page);
                page += LARGE_PAGE_BYTES;
            }
            next = page;
        }
        pages
    }
}

fn is_text(area: &Area) -> bool {
    let is_file = matches!(area.backing, Backing::Module { .. });
    is_file && !area.protection.is_empty() && !area.protection.contains(Protection::WRITE)
}
