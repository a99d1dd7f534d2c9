/* SPDX-License-Identifier: Apache-2.0 */
/* `secpool keystore anchor`. */
#include "cli/keystore.h"

#include <stdio.h>

#include "cli/commands.h"
#include "cli/conn.h"
#include "lib/base/clock.h"
#include "lib/base/os.h"
#include "lib/wire/sock.h"

/* Above what keymgrd gives the enclave for each of its steps (keymgr/anchor.c). */
#define ASK_NS (300 * CLOCK_NS_PER_S)

enum secpool_error keystore_anchor(const char *runtime, struct msg_keystore_anchored *ret_anchored)
{
	struct msg msg = {.type = MSG_KEYSTORE_ANCHOR}, answer;
	int fd = -1;
	enum secpool_error error = conn_open(runtime, "keymgr.sock", &fd);

	if (!error)
		error = sock_call(fd, &msg, NULL, 0, MSG_KEYSTORE_ANCHORED, &answer, NULL,
			clock_now_ns() + ASK_NS);
	os_close(&fd);
	if (!error)
		*ret_anchored = answer.u.keystore_anchored;
	return error;
}

int command_keystore_anchor(const struct args *args)
{
	struct msg_keystore_anchored done;
	enum secpool_error error = keystore_anchor(args->runtime, &done);

	if (error)
		return command_failed(error);
	printf("generation %llu: %llu keys are destroyed durably, in %.1f ms\n",
		(unsigned long long)done.generation, (unsigned long long)done.erased,
		(double)done.took_ns / CLOCK_NS_PER_MS);
	return STATUS_DONE;
}
