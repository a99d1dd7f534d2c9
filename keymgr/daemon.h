/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the parts of the key manager's front share: one struct with a pointer to each part, made by main.c and passed to all.
 * A part is used only by its own header. Threads: one (the loop's).
 */
#ifndef SECPOOL_KEYMGR_DAEMON_H
#define SECPOOL_KEYMGR_DAEMON_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <systemd/sd-event.h>

#include "lib/base/err.h"
#include "lib/wire/msg.h"

struct parts;
struct policy;
struct directory;
struct wraps;
struct anchor;
struct auditlog;
struct server;
struct devices;
struct sessions;
struct owners;
struct creates;
struct releases;
struct seals;
struct rebalance;
struct events;

struct daemon {
	sd_event *loop;
	const struct policy *policy;
	struct directory *directory;
	struct wraps *wraps;
	struct anchor *anchor;
	struct auditlog *auditlog;
	struct server *server;
	struct devices *devices;
	struct sessions *sessions;
	struct owners *owners;
	struct creates *creates;
	struct releases *releases;
	struct seals *seals;
	struct rebalance *rebalance; /* NULL: the policy has none */
	struct events *events;
	int enclave;     /* the socket to the enclave */
	pid_t enclave_pid;
	bool provisioned; /* the enclave made a new root key at this start */
	bool recovered;   /* the store was recovered, and no generation was made since */
	uint64_t generation; /* of the key tree */
	int faultfd;      /* /dev/userfaultfd, or -1 */
	bool may_raise;   /* other users' resource limits: CAP_SYS_RESOURCE */
	uint64_t start_ns;
	struct parts *parts; /* main.c's own */
};

/*
 * Asks the enclave and waits for its answer, with up to one descriptor (-1: none). An enclave that does not answer, or
 * not in the protocol, ends the daemon's loop with status 1: nothing goes on without it. An error that it answers with is only returned.
 */
enum secpool_error daemon_ask(struct daemon *daemon, struct msg *request, int fd, uint32_t want,
	struct msg *ret_answer) MUST_USE;

/* The same for what the enclave's TPM takes part in: it may take longer. */
enum secpool_error daemon_ask_within(struct daemon *daemon, uint64_t wait_ns, struct msg *request, int fd, uint32_t want, struct msg *ret_answer) MUST_USE;

/* Ends the loop with status 1 after an error that leaves the daemon unable to keep its promises. */
void daemon_fail(struct daemon *daemon, const char *event, enum secpool_error error);

#endif
