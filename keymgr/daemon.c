/* SPDX-License-Identifier: Apache-2.0 */
#include "keymgr/daemon.h"

#include "enclave/enclave.h"
#include "keymgr/auditlog.h"
#include "lib/base/clock.h"
#include "lib/base/log.h"
#include "lib/wire/sock.h"

/* How long the enclave may take: it only computes; its verifier has a deadline of its own below this. */
#define ASK_NS (10 * CLOCK_NS_PER_S)

enum secpool_error daemon_ask(
	struct daemon *daemon, struct msg *request, int fd, uint32_t want, struct msg *ret_answer)
{
	return daemon_ask_within(daemon, ASK_NS, request, fd, want, ret_answer);
}

enum secpool_error daemon_ask_within(struct daemon *daemon, uint64_t wait_ns, struct msg *request,
	int fd, uint32_t want, struct msg *ret_answer)
{
	struct msg answer;
	const struct enclave_audit audit = {.keep = auditlog_keep, .arg = daemon->auditlog};
	enum secpool_error error = enclave_exchange(
		daemon->enclave, &audit, request, &fd, fd >= 0 ? 1 : 0, want, &answer, wait_ns);

	if (error) {
		daemon_fail(daemon, "enclave-gone", error);
		return error;
	}
	/* whatever the enclave says, it is there: a client or a device may be behind a refusal */
	error = sock_answer_error(&answer);
	if (!error && ret_answer)
		*ret_answer = answer;
	return error;
}

void daemon_fail(struct daemon *daemon, const char *event, enum secpool_error error)
{
	log_error(event, error);
	sd_event_exit(daemon->loop, 1);
}
