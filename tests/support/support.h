/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For tests that need the whole of secpool: starting and ending the embedded default, running the command, acting as a client on the
 * wire, looking into processes, files and cores from outside.
 *
 * The programs are found beside the running test: <B>/tests/<kind>/test_x uses <B>/bin. Everything lives below the test's own runtime folder
 * (SECPOOL_RUNTIME_DIR, from tests/run.sh; a fresh one when it is not set).
 * What a test relies on ends the test with a sentence when it fails (support_fail): a test never goes on from a bad start.
 * Threads: one.
 */
#ifndef SECPOOL_TESTS_SUPPORT_H
#define SECPOOL_TESTS_SUPPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "lib/base/err.h"
#include "lib/secpool.h"

/* Ends the test program with status 1 (77 for skip) after a sentence; the embedded default is brought down first. */
void support_fail(const char *format, ...) PRINTF_LIKE(1, 2) __attribute__((noreturn));
void support_skip(const char *format, ...) PRINTF_LIKE(1, 2) __attribute__((noreturn));

/* Fails unless the call gave SECPOOL_OK; says what it gave. */
#define SUPPORT_OK(call) support_check_ok((call), #call, __FILE__, __LINE__)
void support_check_ok(enum secpool_error error, const char *call, const char *file, int line);
/* Fails unless the condition holds. */
#define SUPPORT_CHECK(condition)                                                                   \
	((condition) ? (void)0                                                                     \
		     : support_fail("%s:%d: not so: %s", __FILE__, __LINE__, #condition))

/* Folders, without a slash at the end. Valid for the life of the process. */
const char *support_bin_dir(void);
const char *support_runtime_dir(void);
/* "<runtime>/<name>", formatted into one of eight buffers that are used in turn. */
const char *support_path(const char *format, ...) PRINTF_LIKE(1, 2);

/*
 * Writes the tests' policy into the temporary folder and returns its path. Tenants: alpha and alpha2 (the caller; alpha may share with alpha2), beta (user nobody), small (the
 * caller; 8 MiB, 1 region, 1 session), brief (the caller). session_seconds: 0 for sessions without end. Under TSan the window is one that TSan leaves free.
 */
const char *support_policy(unsigned session_seconds);
/* Lines that it has besides, for tests that set them before support_up; NULL: none. */
extern const char *support_policy_lines;

/* Starts the embedded default with that policy (NULL: support_policy(0)) and waits until it is ready. bytes as the command takes it: "64M". */
void support_up(unsigned devices, const char *bytes, const char *policy);
/* Ends it; nothing is left. Also called by support_fail. */
void support_down(void);

/* Runs `secpool ARGS...` (ends with NULL) and returns its exit status; what it prints goes to text (may be NULL). */
int support_cli(char *text, size_t text_bytes, const char *arg, ...) __attribute__((sentinel));
/* The same for any program: argv[0] is its path. 128 + signal when it died by one. */
int support_run(char *text, size_t text_bytes, char *const *argv);

/* The daemon's process by its pid file (vtpm, keymgrd, hotplugd); 0 when there is none. */
pid_t support_daemon(const char *name);
/* kill -9, and waits until it is gone. */
void support_kill_daemon(const char *name);

/* Asks until it is true, every 20 ms; false after ms. */
bool support_wait(bool (*is_true)(void *arg), void *arg, unsigned ms);
/* Waits until the device is in that state and, if scrubbed is set, none of its space waits for a scrub; fails after ms. */
void support_wait_device(const char *id, const char *state, bool scrubbed, unsigned ms);
/* Has the device attested, as soon as hotplugd has keymgrd again; fails after ms. */
void support_attest(const char *id, unsigned ms);
/* Waits until keymgrd lists this many regions; fails after ms. */
void support_wait_regions(unsigned count, unsigned ms);

/* A secret to look for: kept masked, so that this process does not hold it in clear. */
struct support_needle {
	size_t bytes;
	uint8_t masked[256];
};
enum { SUPPORT_MASK = 0xa7 };
/* Random bytes; each is written by the caller one at a time with support_needle_byte. */
void support_needle_random(struct support_needle *needle, size_t bytes);
static inline uint8_t support_needle_byte(const struct support_needle *needle, size_t i)
{
	return needle->masked[i % needle->bytes] ^ SUPPORT_MASK;
}
/* How often it stands in these bytes, in a file, in the readable memory of a process (counted where it may be read). */
size_t support_count_bytes(const struct support_needle *needle, const void *bytes, size_t count);
size_t support_count_file(const struct support_needle *needle, const char *path);
size_t support_count_process(const struct support_needle *needle, pid_t pid, size_t *ret_read_bytes);
/* Over every process but this one and those listed; says in which it was found. */
size_t support_count_others(const struct support_needle *needle, const pid_t *except, size_t except_count);

/*
 * Many secrets looked for in one pass, each of SUPPORT_PART_BYTES bytes and masked as a needle is. The sieve keeps a sorted copy; free it with support_sieve_free.
 * Counted is how often any of them stands there.
 */
enum { SUPPORT_PART_BYTES = 16 };
struct support_sieve;
struct support_sieve *support_sieve_new(const uint8_t (*masked)[SUPPORT_PART_BYTES], size_t count);
void support_sieve_free(struct support_sieve *sieve);
size_t support_sieve_count_bytes(const struct support_sieve *sieve, const void *bytes, size_t count);
size_t support_sieve_count_process(const struct support_sieve *sieve, pid_t pid, size_t *ret_read_bytes);

/* ---- acting as a client on the wire ---- */
/* Connects as a client and opens a session. Returns the error of SESSION_OPEN; *ret_fd is -1 then. */
enum secpool_error support_session(const char *tenant, uint64_t local_bytes, int *ret_fd) MUST_USE;
struct msg;
struct sock_extra;
/* Sends and waits for the answer with the same number, reading over what comes unasked; the key's descriptor of a REGION_KEY goes to *ret_key (may be NULL). */
enum secpool_error support_ask(int fd, struct msg *request, uint32_t want, struct msg *ret_answer, int *ret_key) MUST_USE;

/*
 * Asks a daemon ("keymgr.sock", "hotplug.sock") for a list (enum msg_list_kind); each row of that type goes to take until it returns false. Errors: those of the connection, the daemon's own.
 */
enum secpool_error support_list(const char *socket, uint32_t what, uint32_t row_type, bool (*take)(const struct msg *row, void *arg), void *arg) MUST_USE;

/* ---- a program of the library's user, in a process of its own ---- */
/* Forks; the child runs work(arg) and ends with its result. Call it while this process has no pool open. */
pid_t support_fork(int (*work)(void *arg), void *arg);
/* Waits for it at most ms; its exit status, or 128 + signal; fails when it does not end. */
int support_join(pid_t pid, unsigned ms);

/* The fault mode of the pools that support_open opens; thread unless a test sets it. */
extern enum secpool_fault_mode support_fault_mode;

/* A pool of the tenant and a region of it, with 4 MiB or more of local memory; they fail the test, not the caller. */
struct secpool *support_open(const char *tenant, size_t local_bytes);
struct secpool_region *support_region(struct secpool *pool, size_t bytes, unsigned copies);
struct secpool_region *support_coded(struct secpool *pool, size_t bytes, unsigned data, unsigned parity);
/* Waits for an event of that type; false when it did not come within ms. What else comes is dropped. */
bool support_event(struct secpool *pool, enum secpool_event_type type, unsigned ms, struct secpool_event *ret_event);

/* A page's worth of bytes that follow from a number: the model that data is checked against. */
void support_fill(void *page, size_t bytes, uint64_t seed);
bool support_matches(const void *page, size_t bytes, uint64_t seed);

#endif
