//! Pages of PostgreSQL's data files: whether one still fits the checksum that was written with it.
//!
//! The algorithm is PostgreSQL's own (`src/include/storage/checksum_impl.h`, and `src/backend/storage/page/README` for what it is
//! meant to find). PostgreSQL looks at a page when it reads it; what nobody reads may be damaged for years.

/// Bytes of a page.
pub const PAGE: usize = 8192;
/// Pages in a file; a larger relation goes on in the next one (`RELSEG_SIZE`).
pub const PAGES_IN_A_FILE: u32 = 131_072;

/// Where a page's checksum lies (`pd_checksum`).
const CHECKSUM_AT: usize = 8;
/// Where the end of its free room lies (`pd_upper`): zero in a page that was never filled.
const UPPER_AT: usize = 14;
const LANES: usize = 32;
const PRIME: u32 = 16_777_619;
const OFFSETS: [u32; LANES] = [
    0x5B1F_36E9,
    0xB852_5960,
    0x02AB_50AA,
    0x1DE6_6D2A,
    0x79FF_467A,
    0x9BB9_F8A3,
    0x217E_7CD2,
    0x83E1_3D2C,
    0xF8D4_474F,
    0xE39E_B970,
    0x42C6_AE16,
    0x9932_16FA,
    0x7B09_3B5D,
    0x98DA_FF3C,
    0xF718_902A,
    0x0B1C_9CDB,
    0xE58F_764B,
    0x1876_36BC,
    0x5D7B_3BB1,
    0xE73D_E7DE,
    0x92BE_C979,
    0xCCA6_C0B2,
    0x304A_0979,
    0x85AA_43D4,
    0x7831_25BB,
    0x6CA8_EAA2,
    0xE407_EAC6,
    0x4B5C_FC3E,
    0x9FBF_8C76,
    0x15CA_20BE,
    0xF2CA_9FD3,
    0x959B_D756,
];

/// Whether a page is what was written. `block`: its number in the relation, which the checksum covers. One that was never filled
/// has no checksum, and holds nothing but zeros.
///
/// # Panics
/// When it has not [`PAGE`] bytes.
pub fn is_whole(page: &[u8], block: u32) -> bool {
    assert_eq!(page.len(), PAGE, "a page has {PAGE} bytes");
    if page[UPPER_AT..UPPER_AT + 2] == [0, 0] {
        return page.iter().all(|byte| *byte == 0);
    }
    checksum(page, block) == u16::from_le_bytes([page[CHECKSUM_AT], page[CHECKSUM_AT + 1]])
}

fn checksum(page: &[u8], block: u32) -> u16 {
    let mix = |sum: u32, value: u32| {
        let both = sum ^ value;
        both.wrapping_mul(PRIME) ^ (both >> 17)
    };
    let mut sums = OFFSETS;
    for (row, words) in page.chunks_exact(4 * LANES).enumerate() {
        for (lane, (sum, word)) in sums.iter_mut().zip(words.chunks_exact(4)).enumerate() {
            let mut word = [word[0], word[1], word[2], word[3]];
            if row == 0 && lane == CHECKSUM_AT / 4 {
                // The checksum itself counts as zero.
                (word[0], word[1]) = (0, 0);
            }
            *sum = mix(*sum, u32::from_le_bytes(word));
        }
    }
    let all = sums.into_iter().map(|sum| mix(mix(sum, 0), 0)).fold(0, |all, sum| all ^ sum);
    ((all ^ block) % 65_535 + 1) as u16
}

/// The number of the file's first page in its relation, from the file's name in a folder of data: `16384`, `16384.1`,
/// `16384_fsm`, `16384_vm.2`, `16384_init`. `None` for files that hold no pages, or those of a session alone.
pub fn first_block(name: &str) -> Option<u32> {
    let (relation, segment) = match name.split_once('.') {
        Some((relation, segment)) => (relation, segment.parse::<u32>().ok()?),
        None => (name, 0),
    };
    let (number, fork) = relation.split_once('_').unwrap_or((relation, "main"));
    let is_number = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    let is_known = matches!(fork, "main" | "fsm" | "vm" | "init");
    (is_number && is_known).then(|| segment.saturating_mul(PAGES_IN_A_FILE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_with_pages_are_told_from_others_by_their_names() {
        assert_eq!(first_block("16384"), Some(0));
        assert_eq!(first_block("16384_fsm"), Some(0));
        assert_eq!(first_block("16384.2"), Some(2 * PAGES_IN_A_FILE));
        assert_eq!(first_block("16384_vm.1"), Some(PAGES_IN_A_FILE));
        for other in
            ["pg_control", "PG_VERSION", "pg_internal.init", "pg_filenode.map", "t3_16384", "pgsql_tmp1", "16384.x", ""]
        {
            assert_eq!(first_block(other), None, "{other}");
        }
    }

    #[test]
    fn a_bit_anywhere_and_a_page_in_anothers_place_are_found() {
        assert!(is_whole(&[0; PAGE], 7));
        let mut page = [0; PAGE];
        page[UPPER_AT + 1] = 0x20;
        page[5_000] = 9;
        let right = checksum(&page, 7).to_le_bytes();
        page[CHECKSUM_AT..CHECKSUM_AT + 2].copy_from_slice(&right);
        assert!(is_whole(&page, 7) && !is_whole(&page, 8));
        for at in [0, CHECKSUM_AT, UPPER_AT, 100, 5_000, PAGE - 1] {
            let mut damaged = page;
            damaged[at] ^= 4;
            assert!(!is_whole(&damaged, 7), "{at}");
        }
        let mut nearly_empty = [0; PAGE];
        nearly_empty[PAGE - 1] = 1;
        assert!(!is_whole(&nearly_empty, 0));
    }
}
