/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libsecpool: memory from an encrypted pool that the program does not have to trust.
 *
 * A program opens a pool as a tenant, creates regions (each may be far larger than the machine's memory) and uses them by plain
 * loads and stores. Only a bounded number of pages is in local memory as plaintext (options.local_bytes); all others are on
 * the pool's devices, encrypted, authenticated and bound to their place and version.
 *
 * Dangers:
 * - A page whose last copy went with its device raises SIGBUS when touched (si_addr names it), unless the region is mirrored.
 *   secpool_read and secpool_write return SECPOOL_E_LOST instead.
 * - A child made by fork does not have the regions (under `secpool run` it may have copies, secpool-run(1)): touching them there is SIGBUS, calls return SECPOOL_E_CLOSED, and it can open no pool before it execs.
 * - munmap, mremap and madvise on a region are refused (EINVAL) by the library's own versions of these functions.
 * - SIGBUS is the library's: it interposes sigaction, signal and the functions that block signals, and hands the program what is its own.
 *
 * mprotect on a region is refused too. A handle that has ended (a region that was released, a pool that was closed) gives SECPOOL_E_CLOSED for a while, then it is undefined what happens. secpool_free with a closed pool and a second secpool_close end the program with a sentence.
 *
 * Functions return 0 (SECPOOL_OK) or an error; results come last and are written only on success. secpool_error_detail()
 * says in words what failed and what to do.
 *
 * Threads: every function may be called from any thread, unless it says otherwise; not from a signal handler.
 */
#ifndef SECPOOL_H
#define SECPOOL_H

#include <stddef.h>
#include <stdint.h>

#include "secpool_error.h"

#ifdef __cplusplus
extern "C" {
#endif

#pragma GCC visibility push(default)

#define SECPOOL_MUST_USE __attribute__((warn_unused_result))

struct secpool;        /* a tenant's open pool */
struct secpool_region; /* one region of it */

/* Capacities, in bytes with the NUL. */
enum { SECPOOL_NAME_BYTES = 64, SECPOOL_RECEIPT_BYTES = 4096 };

enum secpool_fault_mode {
	SECPOOL_FAULT_THREAD = 0, /* handler threads serve faults; system calls on pool memory work, unless secpool_stats.user_faults_only */
	SECPOOL_FAULT_INLINE = 1, /* the faulting thread serves itself, in a SIGBUS handler; system calls on pool memory that is not pinned give EFAULT */
};

enum secpool_redundancy {
	SECPOOL_REDUNDANCY_NONE = 0,
	SECPOOL_REDUNDANCY_MIRROR = 1, /* `copies` copies on different fault domains */
	SECPOOL_REDUNDANCY_EC = 2,     /* an erasure code of `data` and `parity` lanes on different fault domains: any `parity` of them may go; pages of at most 128 KiB */
};

enum secpool_on_loss {
	SECPOOL_ON_LOSS_DEFAULT = 0,  /* failover when mirrored, else sigbus */
	SECPOOL_ON_LOSS_SIGBUS = 1,   /* touching a lost page raises SIGBUS */
	SECPOOL_ON_LOSS_FAILOVER = 2, /* needs redundancy: other copies serve */
	SECPOOL_ON_LOSS_REFILL = 3,   /* `refill` makes a lost page again when it is asked for */
	SECPOOL_ON_LOSS_SIGNAL = 4,   /* as sigbus, and keymgrd sends `loss_signal` to the process, with the region's number (secpool_region_number) as its value */
	SECPOOL_ON_LOSS_KILL = 5,     /* keymgrd ends the process with SIGKILL */
};

struct secpool_region_options;

/* Set size = sizeof(struct secpool_options) and the rest to zero for the defaults. */
struct secpool_options {
	size_t size;
	const char *runtime_dir;          /* NULL: $SECPOOL_RUNTIME_DIR, /run/secpool or $XDG_RUNTIME_DIR/secpool */
	size_t local_bytes;               /* most plaintext in local memory; 0: 64 MiB; at least 4 MiB */
	enum secpool_fault_mode fault_mode;
	unsigned fault_threads;           /* 1 to 16; 0: 2 */
	/*
	 * What the regions of the pool's heap (secpool_malloc) are like: page_bytes, redundancy with copies, data and parity, and on_loss with loss_signal; size is set, and
	 * the rest zero. Copied. NULL: one copy, pages of 4 KiB, on_loss sigbus.
	 */
	const struct secpool_region_options *heap;
	int read_only;                    /* not 0: it attaches sealed regions alone, and gets devices by descriptors that can't be written by */
};

struct secpool_region_options {
	size_t size;
	size_t bytes;                     /* rounded up to whole pages */
	size_t page_bytes;                /* power of two, 4 KiB to 2 MiB; 0: 4 KiB */
	enum secpool_redundancy redundancy;
	unsigned copies;                  /* of a mirror: 2 to 4; 0: 2 */
	unsigned data, parity;            /* of an erasure code: 2 or more, 1 to 4, at most 16 in all */
	enum secpool_on_loss on_loss;
	/*
	 * For SECPOOL_ON_LOSS_REFILL: fills buffer with the `bytes` (a page) of the region from offset on, and returns 0. Called on a thread of its own, when a lost page is asked for; it may touch other pool
	 * memory. When it returns something else, or later than refill_ms, the page stays lost: SIGBUS. One that is late may still run when its region is
	 * released, and delays the pages behind it.
	 */
	int (*refill)(void *arg, size_t offset, void *buffer, size_t bytes);
	void *refill_arg;
	const char *name;                 /* shown in listings; NULL: none */
	unsigned refill_ms;               /* the callback's deadline; 0: 1000 */
	int loss_signal;                  /* for SECPOOL_ON_LOSS_SIGNAL: a signal, SIGBUS, SIGKILL and SIGSTOP excepted; else 0 */
};

/* A part of a region, in bytes from its start. */
struct secpool_range {
	size_t offset;
	size_t bytes;
};

/* What happened to a region's space after release. text is the signed document that `secpool receipt verify` checks. */
struct secpool_receipt {
	size_t size;
	char text[SECPOOL_RECEIPT_BYTES];
};

enum secpool_event_type {
	SECPOOL_EVENT_DEVICE_LOST = 1,   /* a device went away; regions with copies elsewhere go on */
	SECPOOL_EVENT_DEVICE_ONLINE = 2, /* a device came */
	SECPOOL_EVENT_REGION_LOST = 3,   /* `range` of `region` is lost: one event for each range */
	SECPOOL_EVENT_REGION_FAILOVER = 4, /* the region lost a copy and goes on with the others */
	SECPOOL_EVENT_BAD_COPY = 5,      /* bytes on a device failed their check; the range was repaired from another copy */
	SECPOOL_EVENT_NO_SPACE = 6,      /* pages can't be written back: no device has space */
	SECPOOL_EVENT_DAEMON_GONE = 7,   /* keymgrd does not answer; the pool goes on meanwhile */
	SECPOOL_EVENT_DAEMON_BACK = 8,
	SECPOOL_EVENT_OVERFLOW = 9,      /* events were dropped: ask secpool_region_lost */
	SECPOOL_EVENT_REGION_ENDED = 11, /* keymgrd was gone for too long, gave the region up, or its policy does not let this program be the tenant any more: all of it raises SIGBUS from now on; release it */
	SECPOOL_EVENT_REGION_WHOLE = 10, /* a rebuild has ended: the region has all its copies, or parity, again */
};

enum secpool_cause {
	SECPOOL_CAUSE_NONE = 0,
	SECPOOL_CAUSE_REMOVED = 1,   /* the device is gone */
	SECPOOL_CAUSE_INTEGRITY = 2, /* the last copy failed its check */
	SECPOOL_CAUSE_NO_SPACE = 3,
	SECPOOL_CAUSE_STUCK = 4,     /* the device did not answer within the policy's bound, and was given up */
};

struct secpool_event {
	size_t size;
	enum secpool_event_type type;
	enum secpool_cause cause;
	struct secpool_region *region; /* NULL when it is about the pool */
	struct secpool_range range;
	char device[SECPOOL_NAME_BYTES];
	uint64_t time_ns; /* CLOCK_MONOTONIC */
};

struct secpool_stats {
	size_t size;
	uint64_t local_bytes_limit;
	uint64_t resident_bytes;        /* plaintext pages in local memory now */
	uint64_t faults;                /* pages asked for */
	uint64_t fills;                 /* pages read from devices */
	uint64_t zero_fills;            /* pages touched for the first time */
	uint64_t evictions;
	uint64_t write_backs;           /* of these, pages that had to be written */
	uint64_t integrity_failures;
	uint64_t repairs;
	uint64_t failovers;             /* reads served by another copy than the first */
	uint64_t lost_pages;
	uint64_t metadata_bytes;
	uint64_t user_faults_only;      /* 1: the kernel's own faults are not served: a system call on pool memory that is not resident fails with EFAULT, in fault mode thread too */
};

/*
 * Opens the pool as a tenant: connects to keymgrd, which decides by the caller's user id and its policy.
 * tenant: a name in the policy, at most SECPOOL_NAME_BYTES - 1 bytes. options: NULL for the defaults.
 * Errors: SECPOOL_E_DAEMON_GONE, SECPOOL_E_UNKNOWN_TENANT, SECPOOL_E_DENIED, SECPOOL_E_QUOTA, SECPOOL_E_NO_FAULTFD,
 * SECPOOL_E_NO_LOCKED_MEMORY, SECPOOL_E_NO_SECRET_MEMORY, SECPOOL_E_SELFTEST, SECPOOL_E_INVALID, SECPOOL_E_UNSUPPORTED,
 * SECPOOL_E_CLOSED (this is a child, made by fork, of a process that had opened a pool). Nothing is left behind.
 */
SECPOOL_MUST_USE enum secpool_error secpool_open(
	const char *tenant, const struct secpool_options *options, struct secpool **ret_pool);

/* Releases what regions are left and closes. NULL is allowed. No other thread may use the pool or its memory. */
void secpool_close(struct secpool *pool);

/*
 * Creates a region of zeros at an address that no other region of the directory has.
 * Errors: SECPOOL_E_INVALID, SECPOOL_E_UNSUPPORTED (an option that is not there yet), SECPOOL_E_NO_SPACE, SECPOOL_E_QUOTA, SECPOOL_E_DENIED,
 * SECPOOL_E_NOT_ATTESTED (too few devices with fresh evidence), SECPOOL_E_DAEMON_GONE, SECPOOL_E_NO_LOCKED_MEMORY. Nothing is left behind.
 */
SECPOOL_MUST_USE enum secpool_error secpool_region_create(struct secpool *pool,
	const struct secpool_region_options *options, struct secpool_region **ret_region);

/*
 * Ends a region: its memory becomes inaccessible, its key is destroyed, its space is overwritten and read back. ret_receipt may be NULL;
 * else set ret_receipt->size first. The handle is gone, also on error. No other thread may touch the region's memory.
 * Errors: SECPOOL_E_DAEMON_GONE (the daemon releases the region when it is back and this process has ended); SECPOOL_E_TIMEOUT (it is released; a device with its space was not seen since the
 * daemon's start half a minute ago or longer: the receipt is stored when that was overwritten, or is found missing).
 */
SECPOOL_MUST_USE enum secpool_error secpool_region_release(
	struct secpool_region *region, struct secpool_receipt *ret_receipt);

void *secpool_region_address(const struct secpool_region *region);
size_t secpool_region_bytes(const struct secpool_region *region);
/* The number by which keymgrd, its listings and signals name it. */
uint64_t secpool_region_number(const struct secpool_region *region);

/*
 * The ranges that are lost now, in order, merged: up to `count` of them into ranges (may be NULL when count is 0); *ret_count is how many there are.
 */
SECPOOL_MUST_USE enum secpool_error secpool_region_lost(struct secpool_region *region,
	struct secpool_range *ranges, size_t count, size_t *ret_count);

/*
 * Sealed regions: immutable, and read by many programs at the same address, so that pointers inside them are valid in each. A sealed region outlives its program; it is its tenant's until
 * secpool_region_release by an owner: the program that sealed it, or one that attached it with SECPOOL_ATTACH_OWNER. secpool_close leaves it.
 */

/* For secpool_region_attach. */
enum secpool_attach {
	SECPOOL_ATTACH_OWNER = 1, /* as the tenant that it is: it may grant, and releasing the region ends it for all */
};

/*
 * Freezes a region for ever, under a name that no other sealed region of the tenant has: writes all of it to the devices, reads it back for its manifest, and has that sealed with its key. From then on a store to it is SIGSEGV, and
 * secpool_write and secpool_pin are refused. No other thread may write to the region meanwhile. name: 1 to SECPOOL_NAME_BYTES - 1 bytes without a slash.
 * Errors: SECPOOL_E_EXISTS (the name is taken, or it is sealed), SECPOOL_E_BUSY (pages are pinned; it is being moved, rebuilt or renewed: try again), SECPOOL_E_LOST, SECPOOL_E_NO_SPACE, SECPOOL_E_INVALID,
 * SECPOOL_E_UNSUPPORTED (a heap's, erasure-coded or refilled): it is as it was. SECPOOL_E_DAEMON_GONE, SECPOOL_E_TIMEOUT and others: nobody knows whether it is sealed; it can only be read, and be sealed again or released.
 */
SECPOOL_MUST_USE enum secpool_error secpool_region_seal(struct secpool_region *region, const char *name);

/*
 * Lets programs of another tenant attach a sealed region, where the policy allows (share_with); told twice is no error. Or not any more: a program that has attached it keeps it as long as keymgrd runs.
 * Errors: SECPOOL_E_INVALID (not sealed), SECPOOL_E_DENIED (policy, or not an owner), SECPOOL_E_UNKNOWN_TENANT, SECPOOL_E_NOT_FOUND (revoke: there is no such grant), SECPOOL_E_LIMIT (64 tenants), SECPOOL_E_DAEMON_GONE.
 */
SECPOOL_MUST_USE enum secpool_error secpool_region_grant(struct secpool_region *region, const char *tenant);
SECPOOL_MUST_USE enum secpool_error secpool_region_revoke(struct secpool_region *region, const char *tenant);

/*
 * Maps a sealed region at its address, to be read alone. name: NAME of this pool's tenant, or TENANT/NAME. flags: of enum secpool_attach. Each page is checked against the manifest when it is brought in. Releasing it ends it for this program alone, without a receipt, unless it was
 * attached with SECPOOL_ATTACH_OWNER. When its owner ends it there is SECPOOL_EVENT_REGION_ENDED.
 * Errors: SECPOOL_E_NOT_FOUND (no such region, or no grant), SECPOOL_E_DENIED, SECPOOL_E_EXISTS (something else of this program is at its address), SECPOOL_E_INTEGRITY (the manifest is not the one that was sealed),
 * SECPOOL_E_NOT_ATTESTED (a device is not back yet: try again), SECPOOL_E_DEVICE_GONE, SECPOOL_E_LIMIT, SECPOOL_E_INVALID, SECPOOL_E_DAEMON_GONE. Nothing is left behind.
 */
SECPOOL_MUST_USE enum secpool_error secpool_region_attach(
	struct secpool *pool, const char *name, unsigned flags, struct secpool_region **ret_region);

/*
 * Copies between a region and a buffer, with errors instead of signals. Writing whole pages that are lost makes them good again, if there is a device to write them to; a part of a lost page can't be written. Whole pages that are not in local memory are read and written where they are, and stay there.
 * Errors: SECPOOL_E_INVALID (beyond the region), SECPOOL_E_LOST (part of the range may have been copied).
 */
SECPOOL_MUST_USE enum secpool_error secpool_read(
	struct secpool_region *region, size_t offset, void *buffer, size_t bytes);
SECPOOL_MUST_USE enum secpool_error secpool_write(
	struct secpool_region *region, size_t offset, const void *buffer, size_t bytes);

/*
 * Brings the pages of a part of a region in, in batches, and keeps them in local memory and writable until secpool_unpin. What the kernel works on by itself (O_DIRECT, io_uring's
 * registered buffers) must be pinned, and in fault mode inline whatever is handed to a system call. Pins nest. At most half of local_bytes may be pinned.
 * Errors: SECPOOL_E_INVALID, SECPOOL_E_LIMIT, SECPOOL_E_LOST, SECPOOL_E_NO_SPACE, SECPOOL_E_CLOSED (the program closed the library's descriptor); then nothing more is pinned than before.
 */
SECPOOL_MUST_USE enum secpool_error secpool_pin(struct secpool_region *region, size_t offset, size_t bytes);

/* Ends one pin of the same part. Errors: SECPOOL_E_INVALID, SECPOOL_E_NOT_FOUND. */
SECPOOL_MUST_USE enum secpool_error secpool_unpin(struct secpool_region *region, size_t offset, size_t bytes);

/*
 * Brings the pages of a part of a region in, in batches, as far as half of local_bytes goes; they may leave again like any other.
 * Errors: SECPOOL_E_INVALID, SECPOOL_E_NO_SPACE, SECPOOL_E_CLOSED (as for secpool_pin). A lost page is no error here.
 */
SECPOOL_MUST_USE enum secpool_error secpool_prefetch(struct secpool_region *region, size_t offset, size_t bytes);

/*
 * Writes every changed page to the devices; pages stay resident. Returns when all copies were written. Pinned pages are left as they are: the kernel may be writing to them.
 * Errors: SECPOOL_E_NO_SPACE, SECPOOL_E_LOST (a page had no device to go to; it stays resident).
 */
SECPOOL_MUST_USE enum secpool_error secpool_flush(struct secpool_region *region);

/*
 * Memory from a heap in the pool: jemalloc arenas over regions that the heap creates as it grows. Never ordinary memory.
 * NULL on exhaustion, with the reason in secpool_error_detail(). An object goes back to the pool it came from: what is not a live object of that pool's heap ends the program with a sentence on standard error and SIGABRT (a small
 * object that was freed before is recognised while its page is in local memory, and until it is handed out again). Each thread keeps some of the objects up to 4 KiB that it freed
 * for itself, below 1 MiB of them, until it ends; other threads don't get those.
 */
void *secpool_malloc(struct secpool *pool, size_t bytes);
void *secpool_calloc(struct secpool *pool, size_t count, size_t bytes);
void *secpool_realloc(struct secpool *pool, void *memory, size_t bytes);
void *secpool_aligned_alloc(struct secpool *pool, size_t alignment, size_t bytes);
void secpool_free(struct secpool *pool, void *memory);
size_t secpool_usable_size(struct secpool *pool, const void *memory);

/* A descriptor that is readable while events wait; owned by the pool. */
int secpool_event_fd(struct secpool *pool);

/* Takes the oldest event; set ret_event->size first. Errors: SECPOOL_E_NO_EVENT. Never blocks. */
SECPOOL_MUST_USE enum secpool_error secpool_event_next(struct secpool *pool, struct secpool_event *ret_event);

/* Set ret_stats->size first. */
SECPOOL_MUST_USE enum secpool_error secpool_stats(struct secpool *pool, struct secpool_stats *ret_stats);

/* The text of an error; never NULL. */
const char *secpool_strerror(enum secpool_error error);

/* What this thread's last failed call has to say: what failed, where, what to do. "" if nothing. */
const char *secpool_error_detail(void);

#pragma GCC visibility pop

#ifdef __cplusplus
}
#endif

#endif
