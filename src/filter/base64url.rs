//! Owns base64url (RFC 4648, 5) for whole groups: 3 bytes are 4 letters. Called by the filters,
//! whose parts are all whole groups, so that neither padding nor trailing bits can arise here.

const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// What the table below says of a byte that is no letter; a letter's value is below 64.
const NO_LETTER: u8 = 0x80;

const VALUES: [u8; 256] = {
    let mut values = [NO_LETTER; 256];
    let mut value = 0;
    while value < LETTERS.len() {
        values[LETTERS[value] as usize] = value as u8;
        value += 1;
    }
    values
};

/// Fills `bytes` from `text`; the error is where the first byte stands that is no letter.
///
/// # Panics
/// When `text` is not 4 letters for every 3 bytes: callers compare the lengths first.
pub(super) fn decode(text: &[u8], bytes: &mut [u8]) -> Result<(), usize> {
    let (groups, []) = bytes.as_chunks_mut::<3>() else { panic!("bytes come in groups of 3") };
    let (letters, []) = text.as_chunks::<4>() else { panic!("letters come in groups of 4") };
    assert_eq!(letters.len(), groups.len(), "callers compare the lengths first");
    for (at, (letters, group)) in letters.iter().zip(groups).enumerate() {
        let [a, b, c, d] = letters.map(|letter| VALUES[usize::from(letter)]);
        if (a | b | c | d) & NO_LETTER != 0 {
            let bad = [a, b, c, d].iter().position(|value| value & NO_LETTER != 0);
            return Err(at * 4 + bad.expect("one of the four is no letter"));
        }
        *group = [(a << 2) | (b >> 4), (b << 4) | (c >> 2), (c << 6) | d];
    }
    Ok(())
}

/// Appends the letters for `bytes` to `text`.
///
/// # Panics
/// When `bytes` are not whole groups of 3.
pub(super) fn encode(bytes: &[u8], text: &mut String) {
    let (groups, []) = bytes.as_chunks::<3>() else { panic!("bytes come in groups of 3") };
    text.reserve(groups.len() * 4);
    for &[a, b, c] in groups {
        for value in [a >> 2, (a << 4) | (b >> 4), (b << 2) | (c >> 6), c] {
            text.push(char::from(LETTERS[usize::from(value & 63)]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_groups_are_as_in_rfc_4648() {
        // Section 10, those without padding, and the two letters in which section 5 differs.
        for (bytes, text) in [
            (b"".as_slice(), ""),
            (b"foo", "Zm9v"),
            (b"foobar", "Zm9vYmFy"),
            (b"\0\0\0", "AAAA"),
            (b"\xff\xff\xff", "____"),
            (b"\xfb\xef\xbe", "----"),
        ] {
            let mut encoded = String::new();
            encode(bytes, &mut encoded);
            assert_eq!(encoded, text);
            let mut decoded = vec![0; bytes.len()];
            assert_eq!(decode(text.as_bytes(), &mut decoded), Ok(()));
            assert_eq!(decoded, bytes);
        }
    }

    #[test]
    fn every_byte_but_the_letters_is_refused_wherever_it_stands() {
        for byte in 0..=u8::MAX {
            for at in 0..8 {
                let mut text = *b"Zm9vYmFy";
                text[at] = byte;
                let expected = if LETTERS.contains(&byte) { Ok(()) } else { Err(at) };
                assert_eq!(decode(&text, &mut [0; 6]), expected, "{byte:#x} at {at}");
            }
        }
    }
}
