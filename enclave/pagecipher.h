/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The page cipher: what stands between a page's plaintext and the device (DESIGN.md section 4, docs/page-format.md).
 *
 * Ciphertext = AES-256-XTS (IEEE 1619, NIST SP 800-38E) of the page; tag = 16 bytes of GMAC (NIST SP 800-38D) over the ciphertext under a key of
 * its own. Both use one nonce of 96 bits: type 4 | page number 36 | version 56 bits, big end first; the XTS tweak is the nonce zero-extended
 * to 16 bytes. The keys belong to one region and epoch, so the tag binds those too.
 *
 * The caller must raise the version before every sealing of a page: a (page, version) pair is sealed at most once per key.
 * OpenSSL or the CPU's vector instructions do the work (engine.h); the bytes are the same.
 * Threads: a pagecipher has `workers` slots; calls with different worker numbers may run at once, calls with the same may not.
 */
#ifndef SECPOOL_ENCLAVE_PAGECIPHER_H
#define SECPOOL_ENCLAVE_PAGECIPHER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/base/err.h"

/* XTS key with its two distinct halves; GMAC key; tag; nonce. Bytes. */
enum { PAGECIPHER_XTS_KEY_BYTES = 64, PAGECIPHER_TAG_KEY_BYTES = 32, PAGECIPHER_TAG_BYTES = 16, PAGECIPHER_NONCE_BYTES = 12 };
/* What belongs to a region's keys beside them: its owner's key, the root of a sealed region's manifest; and a proof by the former. */
enum { PAGECIPHER_OWNER_KEY_BYTES = 32, PAGECIPHER_ROOT_BYTES = 32, PAGECIPHER_PROOF_BYTES = 32, PAGECIPHER_SUBJECT_BYTES = 64 };
enum { PAGECIPHER_PAGE_BYTES_LEAST = 4096, PAGECIPHER_PAGE_BYTES_MOST = 2 << 20 };
#define PAGECIPHER_PGNO_MOST    ((1ull << 36) - 1)
#define PAGECIPHER_VERSION_MOST ((1ull << 56) - 1)

/* The nonce's type field. */
enum pagecipher_type { PAGECIPHER_DATA = 0, PAGECIPHER_MANIFEST = 1 };

/* Blocks of 16 bytes under one key: at most 2^44 (hard), new key from 2^43 on (soft). IEEE 1619-2018 and NIST SP 800-38E limit a data unit to 2^20 blocks; the limits per key are secpool's own, far below the 2^64 blocks of IEEE 1619-2018 5.1 (docs/page-format.md). */
#define PAGECIPHER_BLOCKS_SOFT (1ull << 43)
#define PAGECIPHER_BLOCKS_HARD (1ull << 44)

/* Each worker takes that many blocks of the hard limit at a time (4 MiB), so that workers do not wait for one counter. The limit is never passed; what a worker took and
 * did not use is lost to the others: a key is refused at most PAGECIPHER_SHARE_BLOCKS for each worker too early. */
enum { PAGECIPHER_SHARE_BLOCKS = 1 << 18 };

struct pagecipher;

/* What a key is bound to; a key page that says otherwise is refused. */
struct pagecipher_binding {
	uint64_t region;
	uint64_t epoch;
	uint64_t page_bytes;
};

/*
 * Takes the key from a secret descriptor (keypage.h) as it came from the enclave; the descriptor stays the caller's, and may be closed after.
 * workers: how many may call at once, 1 to 64.
 * Errors: SECPOOL_E_INVALID (workers or page size), SECPOOL_E_KEY_GONE (not a key page, or bound to something else), SECPOOL_E_CRYPTO (also: the XTS key's halves are equal), SECPOOL_E_NO_LOCKED_MEMORY, SECPOOL_E_NO_SECRET_MEMORY.
 */
enum secpool_error pagecipher_new(int key_fd, const struct pagecipher_binding *expect, unsigned workers, struct pagecipher **ret_cipher) MUST_USE;

/* Wipes the key schedules. NULL is allowed. */
void pagecipher_free(struct pagecipher *cipher);

/*
 * plain -> cipher and tag; page_bytes each, which may not overlap. type: for pages of data PAGECIPHER_DATA. cipher is private memory, not the device.
 * Errors: SECPOOL_E_LIMIT (page number, version or the key's hard limit, which another worker with blocks of its share left may not have met yet), SECPOOL_E_INVALID (worker or type), SECPOOL_E_CRYPTO. cipher and tag then hold nothing of use.
 */
enum secpool_error pagecipher_seal(struct pagecipher *cipher, unsigned worker, enum pagecipher_type type, uint64_t pgno, uint64_t version, const void *plain, void *ciphertext,
	uint8_t tag[PAGECIPHER_TAG_BYTES]) MUST_USE;

/*
 * Decrypts and checks the tag, in constant time. ciphertext must be private memory that no device can change meanwhile; plain must be memory that nobody else looks
 * at before success is returned: what did not match was there for a moment. The same or not overlapping.
 * Errors: SECPOOL_E_INTEGRITY: plain is wiped. SECPOOL_E_CRYPTO.
 */
enum secpool_error pagecipher_open(struct pagecipher *cipher, unsigned worker, enum pagecipher_type type, uint64_t pgno, uint64_t version, const void *ciphertext,
	const uint8_t tag[PAGECIPHER_TAG_BYTES], void *plain) MUST_USE;

/*
 * The same into memory that others may look at at any time: nothing is written there before the tag was found right, in a pass of its own (50 ns more for 4 KiB). They may not overlap.
 * Errors: SECPOOL_E_INTEGRITY: plain is as it was. SECPOOL_E_LIMIT, SECPOOL_E_INVALID, SECPOOL_E_CRYPTO.
 */
enum secpool_error pagecipher_open_exposed(struct pagecipher *cipher, unsigned worker, enum pagecipher_type type, uint64_t pgno, uint64_t version, const void *ciphertext,
	const uint8_t tag[PAGECIPHER_TAG_BYTES], void *plain) MUST_USE;

/* How far ahead pagecipher_open_live asks the CPU for ciphertext: what comes before that is the caller's to ask for. */
enum { PAGECIPHER_AHEAD_BYTES = 2048 };

/*
 * pagecipher_open, or where exposed pagecipher_open_exposed, of ciphertext in memory that others may change meanwhile, a device's: each byte is loaded once and kept in `kept` (a page of private memory), which is what was checked and
 * decrypted. It holds nothing but the key's places and may be left in the middle: guarded_run(). ciphertext and kept: the same or not overlapping; plain overlaps neither. Errors: as those.
 */
enum secpool_error pagecipher_open_live(struct pagecipher *cipher, unsigned worker, enum pagecipher_type type, uint64_t pgno, uint64_t version, const void *ciphertext,
	const uint8_t tag[PAGECIPHER_TAG_BYTES], bool exposed, void *kept, void *plain) MUST_USE;

/*
 * Checks the tag of a page's ciphertext, in constant time, without decrypting it. ciphertext as for pagecipher_open.
 * Errors: SECPOOL_E_INTEGRITY, SECPOOL_E_LIMIT, SECPOOL_E_INVALID, SECPOOL_E_CRYPTO.
 */
enum secpool_error pagecipher_check(struct pagecipher *cipher, unsigned worker, enum pagecipher_type type, uint64_t pgno, uint64_t version, const void *ciphertext,
	const uint8_t tag[PAGECIPHER_TAG_BYTES]) MUST_USE;

/* How many blocks of this key were given out to be sealed, whole shares of the workers: never less than were sealed. Threads: any. */
uint64_t pagecipher_blocks(const struct pagecipher *cipher);

/* What a region's owner wants of the enclave; the subject is the manifest's root, or the tenant's name, and zeros behind it. */
enum pagecipher_wish { PAGECIPHER_WISH_SEAL = 1, PAGECIPHER_WISH_GRANT = 2 };

/*
 * The proof that a wish about the key's region and epoch is the owner's: HMAC-SHA-256 (FIPS 198-1) by the owner's key over wish 4 | region 8 | epoch 8 bytes, little end first, and the subject. keymgrd's front has no such key, so it can't wish by itself.
 * Errors: SECPOOL_E_DENIED (a grantee's key has none), SECPOOL_E_CRYPTO. Threads: any.
 */
enum secpool_error pagecipher_prove(const struct pagecipher *cipher, enum pagecipher_wish wish, const uint8_t subject[PAGECIPHER_SUBJECT_BYTES], uint8_t ret_proof[PAGECIPHER_PROOF_BYTES]) MUST_USE;

/* The owned root that came with the key; zeros: the region was not sealed then. Borrowed: PAGECIPHER_ROOT_BYTES. */
const uint8_t *pagecipher_root(const struct pagecipher *cipher);

/*
 * What the enclave wraps with a sealed region's keys: SHA-256 of the owner's tenant (shorter than PAGECIPHER_SUBJECT_BYTES; with zeros to that) and its manifest's root. So the owner that a reader asked for is the enclave's word, not the manifest's alone.
 * ret_root may be root. Errors: SECPOOL_E_CRYPTO. Threads: any.
 */
enum secpool_error pagecipher_owned_root(const char *tenant, const uint8_t root[PAGECIPHER_ROOT_BYTES], uint8_t ret_root[PAGECIPHER_ROOT_BYTES]) MUST_USE;

/* SHA-256 (FIPS 180-4), by which a manifest names ciphertext, and is named. Errors: SECPOOL_E_CRYPTO. Threads: any. */
enum secpool_error pagecipher_digest(const void *bytes, size_t count, uint8_t ret_digest[PAGECIPHER_ROOT_BYTES]) MUST_USE;

/*
 * What seals and opens in this process from now on, as status shows it: "VAES-512 aes-256-xts + gmac", "VAES-256 ...", or "OpenSSL 3.0.x ...". OpenSSL until selftest_run has passed;
 * then the fastest that the CPU has. A key page that demands OpenSSL has it whatever stands here.
 */
const char *pagecipher_name(void);

/* This process uses OpenSSL's AES-XTS and GMAC only (policy: `cipher: openssl`). Call before selftest_run; nothing takes it back. */
void pagecipher_demand_openssl(void);

#endif
