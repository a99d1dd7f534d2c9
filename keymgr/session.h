/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sessions: a client process that is a tenant, on one connection. The enclave decides whether it may (by the socket itself); the front
 * counts quotas, raises the process's locked-memory limit and remembers whose regions are whose.
 * Threads: one (the loop's).
 */
#ifndef SECPOOL_KEYMGR_SESSION_H
#define SECPOOL_KEYMGR_SESSION_H

#include "keymgr/regions.h"
#include "keymgr/server.h"
#include "lib/base/log.h"
#include "lib/base/os.h"
#include "policy/policy.h"

/* How many reports and losses are taken from a session in a second. */
enum { SESSION_CAUSED_PER_S = 200 };

/* A walk over a region that is going on, by its client's word. */
struct session_walk {
	const struct session *session;
	uint64_t region, done_bytes, all_bytes;
	uint32_t kind; /* enum msg_progress */
	struct session_walk *next;
};

/* A sealed region that the session's program has, or had, attached. */
struct session_attached {
	uint64_t region, bytes;
	struct session_attached *next;
};

struct session_tenant;

struct session {
	struct session *next, *previous; /* of one bucket */
	struct sessions *table;
	struct session_tenant *counted; /* among its tenant's */
	uint64_t id; /* the enclave's handle */
	struct os_process process;
	char tenant[MSG_NAME_BYTES];
	struct policy_quota quota;
	bool read_only; /* devices come to it for reading alone, and it creates no region */
	struct session_attached *attached;
	struct log_limit caused; /* reports and losses that are taken from it */
};

enum secpool_error session_new_table(struct sessions **ret_sessions) MUST_USE;
void session_free_table(struct sessions *sessions);

/* Sessions of a tenant; NULL: all. */
uint64_t session_count(const struct sessions *sessions, const char *tenant);
/* Whether this very process has a session. */
bool session_of_process(const struct sessions *sessions, const struct os_process *process);

/*
 * A walk of that kind (enum msg_progress) over a region of the session's is that far; it has ended when done is all. Errors: SECPOOL_E_NO_MEMORY: it is not shown.
 */
enum secpool_error session_note_walk(struct session *session, uint64_t region, uint32_t kind,
	uint64_t done_bytes, uint64_t all_bytes) MUST_USE;

/* How far the walk of that kind (enum msg_progress) over a region is; zeros when none is going on. */
void session_walk_of(const struct sessions *sessions, uint64_t region, uint32_t kind, uint64_t *ret_done_bytes, uint64_t *ret_all_bytes);

/*
 * Its program attaches a sealed region, or has it attached: it is told of the region's end, and may lock as many bytes more while that is so. Errors: SECPOOL_E_NOT_FOUND (the program has ended: somebody else has its connection), SECPOOL_E_SYSTEM, SECPOOL_E_NO_MEMORY.
 */
enum secpool_error session_attach(struct server_connection *connection, const struct regions_row *region) MUST_USE;
/* Forgets that; whether it was so. */
bool session_detach(struct session *session, uint64_t region);

/* Handlers of the dispatch table: an error is answered by REPLY. */
enum secpool_error session_handle_open(
	struct server_connection *connection, struct msg *msg, struct sock_extra *extra) MUST_USE;
enum secpool_error session_handle_close(
	struct server_connection *connection, struct msg *msg, struct sock_extra *extra) MUST_USE;

enum secpool_error session_handle_progress(
	struct server_connection *connection, struct msg *msg, struct sock_extra *extra) MUST_USE;

/* The connection has ended; without a session nothing happens. */
void session_end(struct server_connection *connection);

/* Whether the connection is open and of the region's process and tenant: what is told about it goes there. */
bool session_owns(const struct server_connection *connection, const struct regions_row *region);

/*
 * A live region of this session's process and tenant. Errors: SECPOOL_E_NOT_FOUND (also for another's region: who asks learns
 * nothing), SECPOOL_E_KEY_GONE (being released), SECPOOL_E_STORE.
 */
enum secpool_error session_region(const struct server_connection *connection, uint64_t region,
	struct regions_row *ret_row) MUST_USE;

#endif
