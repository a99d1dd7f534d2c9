/* SPDX-License-Identifier: Apache-2.0 */
/* `secpool keystore anchor`. */
#include <stdio.h>

#include "cli/commands.h"
#include "cli/conn.h"
#include "lib/base/clock.h"
#include "lib/base/os.h"
#include "lib/wire/sock.h"

/* Above what keymgrd gives the enclave for each of its steps (keymgr/anchor.c). */
#define ASK_NS (300 * CLOCK_NS_PER_S)

int command_keystore_anchor(const struct args *args)
{
	struct msg msg = {.type = MSG_KEYSTORE_ANCHOR}, answer;
	const struct msg_keystore_anchored *done = &answer.u.keystore_anchored;
	int fd = -1;
	enum secpool_error error = conn_open(args->runtime, "keymgr.sock", &fd);

	if (!error)
		error = sock_call(fd, &msg, NULL, 0, MSG_KEYSTORE_ANCHORED, &answer, NULL,
			clock_now_ns() + ASK_NS);
	os_close(&fd);
	if (error)
		return command_failed(error);
	printf("generation %llu: %llu keys are destroyed durably, in %.1f ms\n",
		(unsigned long long)done->generation, (unsigned long long)done->erased,
		(double)done->took_ns / CLOCK_NS_PER_MS);
	return STATUS_DONE;
}
