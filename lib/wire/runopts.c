/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/wire/runopts.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/size.h"

static const struct {
	const char *name, *variable;
} texts[RUNOPTS_OPTIONS] = {
	[RUNOPTS_TENANT] = {"tenant", "SECPOOL_RUN_TENANT"},
	[RUNOPTS_LOCAL_BYTES] = {"local-bytes", "SECPOOL_RUN_LOCAL_BYTES"},
	[RUNOPTS_REDUNDANCY] = {"redundancy", "SECPOOL_RUN_REDUNDANCY"},
	[RUNOPTS_ON_LOSS] = {"on-loss", "SECPOOL_RUN_ON_LOSS"},
	[RUNOPTS_FORK] = {"fork", "SECPOOL_RUN_FORK"},
};

void runopts_init(struct runopts *options)
{
	*options = (struct runopts){.tenant = "default", .data = 1, .lanes = 1};
}

const char *runopts_name(enum runopts_option option)
{
	return texts[option].name;
}

const char *runopts_variable(enum runopts_option option)
{
	return texts[option].variable;
}

/* "TERM", "SIGTERM" or a number; 0: there is no such signal, or none that can be asked for. */
static uint32_t read_signal(const char *text)
{
	const char *bare = strncmp(text, "SIG", 3) == 0 ? text + 3 : text;
	char *end;
	unsigned long number = strtoul(text, &end, 10);

	if (text[0] >= '0' && text[0] <= '9')
		return !*end && number < NSIG && msg_signal_valid((uint32_t)number)
			       ? (uint32_t)number
			       : 0;
	for (int i = 1; i < NSIG; i++) {
		const char *name = sigabbrev_np(i);
		if (name && strcmp(name, bare) == 0)
			return msg_signal_valid((uint32_t)i) ? (uint32_t)i : 0;
	}
	return 0;
}

static enum secpool_error read_on_loss(struct runopts *options, const char *text)
{
	static const char with_signal[] = "signal:";
	uint32_t on_loss, number = 0;

	if (strncmp(text, with_signal, sizeof with_signal - 1) == 0) {
		on_loss = MSG_ON_LOSS_SIGNAL;
		number = read_signal(text + sizeof with_signal - 1);
		if (number == 0)
			return err_set(SECPOOL_E_INVALID,
				"on-loss %.40s: a signal's name or number is expected, not BUS, "
				"KILL or STOP",
				text);
	} else {
		on_loss = msg_on_loss_read(text);
		if (on_loss == 0 || on_loss == MSG_ON_LOSS_SIGNAL || on_loss == MSG_ON_LOSS_REFILL)
			return err_set(SECPOOL_E_INVALID,
				"on-loss %.40s: expected failover, sigbus, signal:NAME or kill "
				"(refill needs a program that makes its data again)",
				text);
	}
	options->on_loss = on_loss;
	options->signal = number;
	return SECPOOL_OK;
}

static enum secpool_error read_tenant(struct runopts *options, const char *text)
{
	if (!*text || strlen(text) >= MSG_NAME_BYTES)
		return err_set(
			SECPOOL_E_INVALID, "a tenant's name has 1 to %d bytes", MSG_NAME_BYTES - 1);
	memcpy(options->tenant, text, strlen(text) + 1);
	return SECPOOL_OK;
}

static enum secpool_error read_redundancy(struct runopts *options, const char *text)
{
	uint32_t data, lanes;

	if (!msg_redundancy_read(text, &data, &lanes))
		return err_set(SECPOOL_E_INVALID,
			"redundancy %.40s: expected none, mirror:2 to mirror:%d, or ec:K+M", text,
			MSG_COPIES_MAX);
	options->data = data;
	options->lanes = lanes;
	return SECPOOL_OK;
}

static enum secpool_error read_fork(struct runopts *options, const char *text)
{
	if (strcmp(text, "snapshot") == 0)
		options->fork = RUNOPTS_FORK_SNAPSHOT;
	else if (strcmp(text, "deny") == 0)
		options->fork = RUNOPTS_FORK_DENY;
	else
		return err_set(SECPOOL_E_INVALID, "fork %.40s: expected snapshot or deny", text);
	return SECPOOL_OK;
}

enum secpool_error runopts_read(
	struct runopts *options, enum runopts_option option, const char *text)
{
	switch (option) {
	case RUNOPTS_TENANT:
		return read_tenant(options, text);
	case RUNOPTS_LOCAL_BYTES:
		return size_parse(text, &options->local_bytes);
	case RUNOPTS_REDUNDANCY:
		return read_redundancy(options, text);
	case RUNOPTS_ON_LOSS:
		return read_on_loss(options, text);
	case RUNOPTS_FORK:
		return read_fork(options, text);
	case RUNOPTS_OPTIONS:
		break;
	}
	return err_set(SECPOOL_E_INVALID, "option %d is not known", (int)option);
}
