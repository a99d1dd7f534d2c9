/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "lib/base/clock.h"
#include "policy/value.h"

/* Bounds of the window: above what 32-bit pointers reach, below the kernel's mmap area. */
#define WINDOW_LOWEST	     0x100000000ull
#define WINDOW_END_MOST	     0x7f0000000000ull
#define WINDOW_BASE_DEFAULT  0x110000000000ull
#define WINDOW_BYTES_DEFAULT (64ull << 40)
enum { WINDOW_UNIT = 2 << 20 };

/* A part of what a core copies and decrypts in a second. */
#define REBUILD_BYTES_PER_SECOND_DEFAULT (1ull << 30)
/* 1 % of a core; 16 GiB in 17 minutes. */
#define PATROL_BYTES_PER_SECOND_DEFAULT (16ull << 20)

enum {
	GRACE_SECONDS_DEFAULT = 60,
	SESSION_SECONDS_DEFAULT = 86400,
	/* NIST SP 800-57 part 1, 5.3.6: a key encrypts data for at most two years */
	ROTATE_SECONDS_DEFAULT = 365 * 86400,
	ROTATE_SECONDS_MOST = 20 * 366 * 86400,
	/* DESIGN.md section 4: a TPM's counter wears */
	ANCHOR_SECONDS_DEFAULT = 300,
	ANCHOR_SKIPPED_DEFAULT = 1024,
	ANCHOR_SKIPPED_MOST = 1 << 20,
	HOST_PCR_DEFAULT = 7,
	REBALANCE_PERCENT_DEFAULT = 10,
};

static enum secpool_error build_window(const struct value_source *source,
	const struct schema_window *from, struct policy_settings *to)
{
	enum secpool_error error;

	to->window_base = WINDOW_BASE_DEFAULT;
	to->window_bytes = WINDOW_BYTES_DEFAULT;
	if (!from->base)
		return SECPOOL_OK;
	error = value_size(source, "window.base", from->base, &to->window_base);
	if (!error)
		error = value_size(source, "window.bytes", from->bytes, &to->window_bytes);
	if (error)
		return error;
	if (to->window_base % WINDOW_UNIT)
		return value_refuse(source, "window.base", "expected a multiple of 2M (0x200000)");
	if (to->window_bytes % WINDOW_UNIT || to->window_bytes == 0)
		return value_refuse(source, "window.bytes", "expected a multiple of 2M, and not 0");
	if (to->window_base < WINDOW_LOWEST || to->window_base >= WINDOW_END_MOST)
		return value_refuse(source, "window.base", "expected 0x%llx or more, below 0x%llx",
			WINDOW_LOWEST, WINDOW_END_MOST);
	if (to->window_bytes > WINDOW_END_MOST - to->window_base)
		return value_refuse(source, "window.bytes",
			"expected an end of the window below 0x%llx", WINDOW_END_MOST);
	return SECPOOL_OK;
}

/* When a key is renewed by itself. */
static enum secpool_error build_rotation(const struct value_source *source,
	const struct schema_file *file, struct policy_settings *to)
{
	uint64_t seconds = ROTATE_SECONDS_DEFAULT, bytes = POLICY_ROTATE_BYTES_MOST;
	uint64_t anchor = ANCHOR_SECONDS_DEFAULT, skipped = ANCHOR_SKIPPED_DEFAULT;
	enum secpool_error error = value_number(source, "rotate_after_seconds",
		file->rotate_after_seconds, ROTATE_SECONDS_MOST, &seconds);

	if (!error && file->rotate_after_bytes)
		error = value_size(source, "rotate_after_bytes", file->rotate_after_bytes, &bytes);
	if (!error && (bytes < POLICY_ROTATE_BYTES_LEAST || bytes > POLICY_ROTATE_BYTES_MOST))
		error = value_refuse(source, "rotate_after_bytes",
			"expected 64M to 128T, which is 2^43 blocks: what one key may seal can "
			"only be made less");
	if (!error)
		error = value_number(source, "anchor_after_seconds", file->anchor_after_seconds,
			VALUE_SECONDS_MOST, &anchor);
	if (!error)
		error = value_number(source, "anchor_skipped_most", file->anchor_skipped_most,
			ANCHOR_SKIPPED_MOST, &skipped);
	if (!error && skipped == 0)
		error = value_refuse(source, "anchor_skipped_most", "expected 1 to 1048576");
	to->anchor_skipped_most = skipped;
	to->anchor_after_ns = anchor * CLOCK_NS_PER_S;
	to->rotate_after_ns = seconds * CLOCK_NS_PER_S;
	to->rotate_after_bytes = bytes;
	return error;
}

/* When regions move from fuller devices to emptier ones. */
static enum secpool_error build_rebalance(const struct value_source *source,
	const struct schema_file *file, struct policy_settings *to)
{
	uint64_t percent = REBALANCE_PERCENT_DEFAULT;
	enum secpool_error error =
		value_number(source, "rebalance_percent", file->rebalance_percent, 100, &percent);

	if (!error && percent == 0)
		error = value_refuse(source, "rebalance_percent", "expected 1 or more");
	if (!error && file->rebalance_bytes_per_second)
		error = value_size(source, "rebalance_bytes_per_second",
			file->rebalance_bytes_per_second, &to->rebalance_bytes_per_second);
	to->rebalance_percent = (uint32_t)percent;
	return error;
}

static enum secpool_error build_settings(const struct value_source *source,
	const struct schema_file *file, struct policy_settings *to)
{
	uint64_t version = 0, grace = GRACE_SECONDS_DEFAULT, session = SESSION_SECONDS_DEFAULT;
	enum secpool_error error;

	error = value_number(source, "version", file->version, UINT32_MAX, &version);
	if (!error && version != 1)
		error = value_refuse(source, "version", "expected 1, the only version there is");
	if (!error)
		error = build_window(source, &file->window, to);
	if (!error)
		error = value_number(
			source, "grace_seconds", file->grace_seconds, VALUE_SECONDS_MOST, &grace);
	if (!error)
		error = value_number(source, "session_seconds", file->session_seconds,
			VALUE_SECONDS_MOST, &session);
	if (!error)
		error = devices_build_settings(source, file->devices, to);
	to->host_pcrs = 1u << HOST_PCR_DEFAULT;
	if (!error)
		error = value_pcrs(source, "host_pcrs", file->host_pcrs, file->host_pcrs_count,
			&to->host_pcrs);
	to->rebuild_bytes_per_second = REBUILD_BYTES_PER_SECOND_DEFAULT;
	if (!error && file->rebuild_bytes_per_second)
		error = value_size(source, "rebuild_bytes_per_second",
			file->rebuild_bytes_per_second, &to->rebuild_bytes_per_second);
	to->patrol_bytes_per_second = PATROL_BYTES_PER_SECOND_DEFAULT;
	if (!error && file->patrol_bytes_per_second)
		error = value_size(source, "patrol_bytes_per_second", file->patrol_bytes_per_second,
			&to->patrol_bytes_per_second);
	if (!error)
		error = build_rebalance(source, file, to);
	if (!error)
		error = build_rotation(source, file, to);
	to->grace_ns = grace * CLOCK_NS_PER_S;
	to->session_ns = session * CLOCK_NS_PER_S;
	to->recovery_key = file->recovery == SCHEMA_KEY;
	to->demand_openssl = file->cipher == SCHEMA_OPENSSL;
	to->allow_unlocked_memory = file->allow.unlocked_memory;
	to->allow_device_dma = file->allow.device_dma;
	to->allow_memfd_without_secret = file->allow.memfd_without_secret;
	return error;
}

static enum secpool_error build_quota(const struct value_source *source, size_t index,
	const struct schema_quota *from, struct policy_quota *to)
{
	enum secpool_error error;
	char path[VALUE_PATH_BYTES];

	error = value_size(source, value_path(path, "tenants[%zu].quota.bytes", index), from->bytes,
		&to->bytes);
	if (!error)
		error = value_number(source, value_path(path, "tenants[%zu].quota.regions", index),
			from->regions, UINT32_MAX, &to->regions);
	if (!error)
		error = value_number(source, value_path(path, "tenants[%zu].quota.sessions", index),
			from->sessions, UINT32_MAX, &to->sessions);
	if (!error)
		error = value_size(source,
			value_path(path, "tenants[%zu].quota.local_bytes", index),
			from->local_bytes, &to->local_bytes);
	return error;
}

/* The lists protection, redundancy and on_loss of a tenant; what is left out allows the least. */
static enum secpool_error build_modes(const struct value_source *source, size_t index,
	const struct schema_tenant *from, struct model_tenant *to)
{
	char path[VALUE_PATH_BYTES];

	for (unsigned i = 0; i < from->protection_count; i++) {
		value_path(path, "tenants[%zu].protection[%u]", index, i);
		if (strcmp(from->protection[i], "xts") == 0)
			return value_refuse(
				source, path, "xts alone is not available yet: expected xts-gmac");
		if (strcmp(from->protection[i], "xts-gmac") != 0)
			return value_refuse(source, path, "expected xts-gmac, found '%.40s'",
				from->protection[i]);
	}
	to->copies_allowed = from->redundancy_count ? 0 : 1u << 1;
	for (unsigned i = 0; i < from->redundancy_count; i++)
		if (!model_allow_redundancy(from->redundancy[i], to))
			return value_refuse(source,
				value_path(path, "tenants[%zu].redundancy[%u]", index, i),
				"expected none, mirror:2 to mirror:4, ec:K+M or ec, found '%.40s'",
				from->redundancy[i]);
	to->on_loss_allowed = from->on_loss_count ? 0 : 1u << MSG_ON_LOSS_SIGBUS;
	for (unsigned i = 0; i < from->on_loss_count; i++)
		if (!model_allow_on_loss(from->on_loss[i], to))
			return value_refuse(source,
				value_path(path, "tenants[%zu].on_loss[%u]", index, i),
				"expected sigbus, failover, refill, signal or kill, found '%.40s'",
				from->on_loss[i]);
	return SECPOOL_OK;
}

/* The tenants that it may share with; whether there are such is looked at when all are known (check_shares). */
static enum secpool_error build_shares(const struct value_source *source, size_t index,
	const struct schema_tenant *from, struct model_tenant *to)
{
	enum secpool_error error = SECPOOL_OK;
	char path[VALUE_PATH_BYTES];

	to->share_with = calloc(from->share_with_count + 1u, sizeof *to->share_with);
	if (!to->share_with)
		return err_set(SECPOOL_E_NO_MEMORY, "%s: no memory for its tenants", source->name);
	for (unsigned i = 0; i < from->share_with_count && !error; i++) {
		error = value_name(source,
			value_path(path, "tenants[%zu].share_with[%u]", index, i),
			from->share_with[i], to->share_with[i]);
		to->share_count = i + 1u;
	}
	return error;
}

static enum secpool_error check_shares(
	const struct value_source *source, const struct policy *policy)
{
	char path[VALUE_PATH_BYTES];

	for (size_t i = 0; i < policy->tenant_count; i++)
		for (size_t j = 0; j < policy->tenants[i].share_count; j++)
			if (!model_tenant(policy, policy->tenants[i].share_with[j]))
				return value_refuse(source,
					value_path(path, "tenants[%zu].share_with[%zu]", i, j),
					"there is no tenant '%s'",
					policy->tenants[i].share_with[j]);
	return SECPOOL_OK;
}

/* Where the tenant's rules are, for explanations. */
static void note_lines(const struct lines *lines, size_t index, struct model_tenant *to)
{
	char path[VALUE_PATH_BYTES];

	value_path(path, "tenants[%zu]", index);
	to->lines[POLICY_RULE_TENANT] = lines_of(lines, path);
	for (unsigned rule = POLICY_RULE_USERS; rule < POLICY_RULES; rule++)
		if (rule != POLICY_RULE_QUOTA)
			to->lines[rule] = lines_of_key(lines, path, policy_rule_name(rule));
	to->lines[POLICY_RULE_QUOTA] =
		lines_of(lines, value_path(path, "tenants[%zu].quota.bytes", index));
}

static enum secpool_error build_tenant(const struct value_source *source, size_t index,
	const struct schema_tenant *from, struct policy *policy)
{
	struct model_tenant *to = &policy->tenants[index];
	char path[VALUE_PATH_BYTES], tenant[MODEL_NAME_BYTES];
	enum secpool_error error;

	error = value_name(
		source, value_path(path, "tenants[%zu].name", index), from->name, tenant);
	if (!error && model_tenant(policy, tenant))
		error = value_refuse(source, path, "there are two tenants '%s'", tenant);
	if (error)
		return error;
	memcpy(to->name, tenant, sizeof to->name);
	policy->tenant_count = index + 1; /* from here on policy_free frees it */
	note_lines(source->lines, index, to);
	error = users_build(from, index, source->lines, source->name, to);
	if (!error)
		error = build_quota(source, index, &from->quota, &to->quota);
	if (!error)
		error = build_modes(source, index, from, to);
	if (!error)
		error = build_shares(source, index, from, to);
	return error;
}

enum secpool_error build_policy(const struct schema_file *file, const struct lines *lines,
	const char *name, struct policy *policy)
{
	struct value_source source = {.lines = lines, .name = name};
	enum secpool_error error = build_settings(&source, file, &policy->settings);

	if (error)
		return error;
	policy->tenants = calloc(file->tenants_count + 1u, sizeof *policy->tenants);
	if (!policy->tenants)
		return err_set(SECPOOL_E_NO_MEMORY, "%s: no memory for its tenants", name);
	policy->tenants_line = lines_of_key(lines, "", "tenants");
	for (unsigned i = 0; i < file->tenants_count && !error; i++)
		error = build_tenant(&source, i, &file->tenants[i], policy);
	if (!error)
		error = check_shares(&source, policy);
	if (!error)
		error = devices_build(&source, file->devices, policy);
	return error;
}
