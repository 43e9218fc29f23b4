//! Bytes as a dump: refused or loaded, and then as good as any other book.

#![no_main]

use _kernel::book::Book;
use bench::{PARTITION, go_on, rules};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let mut book = Book::new(rules(2, true), PARTITION);
    book.committed(vec![1_767_335_640_000, 0], vec![5; 2], vec![2, 0]);
    // As it is, and as the body of a dump whose checksum is right: no fuzzer would find that.
    let _ = book.load(input);
    let mut sealed = b"SCBK\x02\x00".to_vec();
    sealed.extend_from_slice(&crc32fast::hash(input).to_le_bytes());
    sealed.extend_from_slice(input);
    let Ok(fingerprint) = book.load(&sealed) else { return };

    let dumped = book.dump(&fingerprint);
    let mut again = Book::new(rules(2, true), PARTITION);
    assert_eq!(again.load(&dumped).as_ref(), Ok(&fingerprint), "a dump is loaded");
    assert_eq!(again.dump(&fingerprint), dumped, "load undoes dump");
    go_on(&mut book);
    let dumped = book.dump(&fingerprint);
    assert_eq!(again.load(&dumped).as_ref(), Ok(&fingerprint), "what came of it is loaded too");
    assert_eq!(again.dump(&fingerprint), dumped, "load undoes dump");
});
