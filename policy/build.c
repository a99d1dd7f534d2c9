/* SPDX-License-Identifier: Apache-2.0 */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/clock.h"
#include "lib/base/size.h"
#include "policy/check.h"
#include "policy/model.h"

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
	AGE_SECONDS_DEFAULT = 3600,
	SECONDS_MOST = 366 * 86400,
	/* NIST SP 800-57 part 1, 5.3.6: a key encrypts data for at most two years */
	ROTATE_SECONDS_DEFAULT = 365 * 86400,
	ROTATE_SECONDS_MOST = 20 * 366 * 86400,
	/* DESIGN.md section 4: a TPM's counter wears */
	ANCHOR_SECONDS_DEFAULT = 300,
	PCRS = 24,     /* TCG PC Client Platform TPM Profile 1.05, section 4.6 */
	PCRS_MOST = 8, /* as TPM_PCRS_MOST */
	HOST_PCR_DEFAULT = 7,
	DEVICE_PCRS_NEEDED = 0x5, /* as EVENTLOG_PCRS_NEEDED */
	DEVICE_PCRS_END = 16,	  /* PC Client Platform Firmware Profile 1.05, section 2.3.4 */
	/* a machine that is busy with other things holds an answer up for tens of ms */
	SUSPECT_MS_DEFAULT = 100,
	GONE_MS_DEFAULT = 1000,
	ANSWER_MS_MOST = 60000,
	/* one tenant's word could bring every device down by lies; keymgrd counts no more than four */
	SUSPECT_TENANTS_DEFAULT = 2,
	SUSPECT_TENANTS_MOST = 4,
	SUSPECT_FAULTS_MOST = 1000000,
	LATENCY_NS_MOST = 1000000000,
};

static enum secpool_error build_window(const struct check_source *source,
	const struct schema_window *from, struct policy_settings *to)
{
	enum secpool_error error;

	to->window_base = WINDOW_BASE_DEFAULT;
	to->window_bytes = WINDOW_BYTES_DEFAULT;
	if (!from->base)
		return SECPOOL_OK;
	error = check_size(source, "window.base", from->base, &to->window_base);
	if (!error)
		error = check_size(source, "window.bytes", from->bytes, &to->window_bytes);
	if (error)
		return error;
	if (to->window_base % WINDOW_UNIT)
		return check_refuse(source, "window.base", "expected a multiple of 2M (0x200000)");
	if (to->window_bytes % WINDOW_UNIT || to->window_bytes == 0)
		return check_refuse(source, "window.bytes", "expected a multiple of 2M, and not 0");
	if (to->window_base < WINDOW_LOWEST || to->window_base >= WINDOW_END_MOST)
		return check_refuse(source, "window.base", "expected 0x%llx or more, below 0x%llx",
			WINDOW_LOWEST, WINDOW_END_MOST);
	if (to->window_bytes > WINDOW_END_MOST - to->window_base)
		return check_refuse(source, "window.bytes",
			"expected an end of the window below 0x%llx", WINDOW_END_MOST);
	return SECPOOL_OK;
}

/* A list of PCRs; an empty one leaves *ret_mask as it is. */
static enum secpool_error build_pcrs(const struct check_source *source, const char *key,
	char *const *texts, unsigned count, uint32_t *ret_mask)
{
	uint32_t mask = 0;
	char path[96];

	if (count > PCRS_MOST)
		return check_refuse(source, key, "expected at most %d PCRs", PCRS_MOST);
	for (unsigned i = 0; i < count; i++) {
		uint64_t pcr = 0;
		enum secpool_error error = check_number(
			source, check_path_of(path, "%s[%u]", key, i), texts[i], PCRS - 1, &pcr);

		if (error)
			return error;
		if (pcr == 16 || pcr == 23) /* TCG PC Client Platform TPM Profile 1.05, 4.6.2 */
			return check_refuse(source, path,
				"anyone can reset PCR %u: expected another one", (unsigned)pcr);
		if (mask & 1u << pcr)
			return check_refuse(source, path, "PCR %u is there twice", (unsigned)pcr);
		mask |= 1u << pcr;
	}
	if (mask)
		*ret_mask = mask;
	return SECPOOL_OK;
}

/* What a device's TPM quotes. */
static enum secpool_error build_device_pcrs(const struct check_source *source,
	const struct schema_devices *from, struct policy_settings *to)
{
	enum secpool_error error = SECPOOL_OK;

	to->device_pcrs = DEVICE_PCRS_NEEDED;
	if (from)
		error = build_pcrs(
			source, "devices.pcrs", from->pcrs, from->pcrs_count, &to->device_pcrs);
	if (!error && (to->device_pcrs & DEVICE_PCRS_NEEDED) != DEVICE_PCRS_NEEDED)
		error = check_refuse(source, "devices.pcrs",
			"expected 0 and 2 among them: they tell firmware and identity");
	if (!error && to->device_pcrs >> DEVICE_PCRS_END)
		error = check_refuse(source, "devices.pcrs",
			"expected PCRs below %d: those above are a host's own", DEVICE_PCRS_END);
	return error;
}

/* How late a device's answer may be. */
static enum secpool_error build_bounds(const struct check_source *source,
	const struct schema_devices *from, struct policy_settings *to)
{
	uint64_t suspect = SUSPECT_MS_DEFAULT, gone = GONE_MS_DEFAULT;
	enum secpool_error error = SECPOOL_OK;

	if (from)
		error = check_number(source, "devices.suspect_after_ms", from->suspect_after_ms,
			ANSWER_MS_MOST, &suspect);
	if (!error && from)
		error = check_number(source, "devices.gone_after_ms", from->gone_after_ms,
			ANSWER_MS_MOST, &gone);
	if (!error && suspect == 0)
		error = check_refuse(source, "devices.suspect_after_ms", "expected 1 or more");
	if (!error && gone <= suspect)
		error = check_refuse(source,
			from->gone_after_ms ? "devices.gone_after_ms" : "devices.suspect_after_ms",
			"expected gone_after_ms (%llu) above suspect_after_ms (%llu)",
			(unsigned long long)gone, (unsigned long long)suspect);
	to->suspect_after_ms = (uint32_t)suspect;
	to->gone_after_ms = (uint32_t)gone;
	return error;
}

/* What makes a device suspect. */
static enum secpool_error build_thresholds(const struct check_source *source,
	const struct schema_devices *from, struct policy_settings *to)
{
	uint64_t tenants = SUSPECT_TENANTS_DEFAULT, faults = 0;
	enum secpool_error error = SECPOOL_OK;

	if (from)
		error = check_number(source, "devices.suspect_tenants", from->suspect_tenants,
			SUSPECT_TENANTS_MOST, &tenants);
	if (!error && from)
		error = check_number(source, "devices.suspect_faults", from->suspect_faults,
			SUSPECT_FAULTS_MOST, &faults);
	if (!error && tenants == 0)
		error = check_refuse(source, "devices.suspect_tenants", "expected 1 or more");
	to->suspect_tenants = (uint32_t)tenants;
	to->suspect_faults = (uint32_t)faults;
	return error;
}

/* When a key is renewed by itself, and the key tree. */
static enum secpool_error build_rotation(const struct check_source *source,
	const struct schema_file *file, struct policy_settings *to)
{
	uint64_t seconds = ROTATE_SECONDS_DEFAULT, bytes = POLICY_ROTATE_BYTES_MOST;
	uint64_t anchor = ANCHOR_SECONDS_DEFAULT;
	enum secpool_error error = check_number(source, "rotate_after_seconds",
		file->rotate_after_seconds, ROTATE_SECONDS_MOST, &seconds);

	if (!error && file->rotate_after_bytes)
		error = check_size(source, "rotate_after_bytes", file->rotate_after_bytes, &bytes);
	if (!error && (bytes < POLICY_ROTATE_BYTES_LEAST || bytes > POLICY_ROTATE_BYTES_MOST))
		error = check_refuse(source, "rotate_after_bytes",
			"expected 64M to 128T, which is 2^43 blocks: what one key may seal can "
			"only be made less");
	if (!error)
		error = check_number(source, "anchor_after_seconds", file->anchor_after_seconds,
			SECONDS_MOST, &anchor);
	to->anchor_after_ns = anchor * CLOCK_NS_PER_S;
	to->rotate_after_ns = seconds * CLOCK_NS_PER_S;
	to->rotate_after_bytes = bytes;
	return error;
}

static enum secpool_error build_settings(const struct check_source *source,
	const struct schema_file *file, struct policy_settings *to)
{
	uint64_t version = 0, grace = GRACE_SECONDS_DEFAULT, session = SESSION_SECONDS_DEFAULT;
	uint64_t age = AGE_SECONDS_DEFAULT;
	enum secpool_error error;

	error = check_number(source, "version", file->version, UINT32_MAX, &version);
	if (!error && version != 1)
		error = check_refuse(source, "version", "expected 1, the only version there is");
	if (!error)
		error = build_window(source, &file->window, to);
	if (!error)
		error = check_number(
			source, "grace_seconds", file->grace_seconds, SECONDS_MOST, &grace);
	if (!error)
		error = check_number(
			source, "session_seconds", file->session_seconds, SECONDS_MOST, &session);
	if (!error && file->devices)
		error = check_number(source, "devices.max_age_seconds",
			file->devices->max_age_seconds, SECONDS_MOST, &age);
	if (!error && age == 0)
		error = check_refuse(source, "devices.max_age_seconds",
			"expected 1 or more: evidence of age 0 is never fresh");
	if (!error)
		error = build_bounds(source, file->devices, to);
	if (!error)
		error = build_thresholds(source, file->devices, to);
	if (!error)
		error = build_device_pcrs(source, file->devices, to);
	to->host_pcrs = 1u << HOST_PCR_DEFAULT;
	if (!error)
		error = build_pcrs(source, "host_pcrs", file->host_pcrs, file->host_pcrs_count,
			&to->host_pcrs);
	to->rebuild_bytes_per_second = REBUILD_BYTES_PER_SECOND_DEFAULT;
	if (!error && file->rebuild_bytes_per_second)
		error = check_size(source, "rebuild_bytes_per_second",
			file->rebuild_bytes_per_second, &to->rebuild_bytes_per_second);
	to->patrol_bytes_per_second = PATROL_BYTES_PER_SECOND_DEFAULT;
	if (!error && file->patrol_bytes_per_second)
		error = check_size(source, "patrol_bytes_per_second", file->patrol_bytes_per_second,
			&to->patrol_bytes_per_second);
	if (!error)
		error = build_rotation(source, file, to);
	to->grace_ns = grace * CLOCK_NS_PER_S;
	to->session_ns = session * CLOCK_NS_PER_S;
	to->max_age_ns = age * CLOCK_NS_PER_S;
	to->demand_openssl = file->cipher == SCHEMA_OPENSSL;
	to->allow_unlocked_memory = file->allow.unlocked_memory;
	to->allow_device_dma = file->allow.device_dma;
	to->allow_memfd_without_secret = file->allow.memfd_without_secret;
	return error;
}

static enum secpool_error build_quota(const struct check_source *source, size_t index,
	const struct schema_quota *from, struct policy_quota *to)
{
	enum secpool_error error;
	char path[96];

	error = check_size(source, check_path_of(path, "tenants[%zu].quota.bytes", index),
		from->bytes, &to->bytes);
	if (!error)
		error = check_number(source,
			check_path_of(path, "tenants[%zu].quota.regions", index), from->regions,
			UINT32_MAX, &to->regions);
	if (!error)
		error = check_number(source,
			check_path_of(path, "tenants[%zu].quota.sessions", index), from->sessions,
			UINT32_MAX, &to->sessions);
	if (!error)
		error = check_size(source,
			check_path_of(path, "tenants[%zu].quota.local_bytes", index),
			from->local_bytes, &to->local_bytes);
	return error;
}

/* The lists protection, redundancy and on_loss of a tenant; what is left out allows the least. */
static enum secpool_error build_modes(const struct check_source *source, size_t index,
	const struct schema_tenant *from, struct model_tenant *to)
{
	char path[96];

	for (unsigned i = 0; i < from->protection_count; i++) {
		check_path_of(path, "tenants[%zu].protection[%u]", index, i);
		if (strcmp(from->protection[i], "xts") == 0)
			return check_refuse(
				source, path, "xts alone is not available yet: expected xts-gmac");
		if (strcmp(from->protection[i], "xts-gmac") != 0)
			return check_refuse(source, path, "expected xts-gmac, found '%.40s'",
				from->protection[i]);
	}
	to->copies_allowed = from->redundancy_count ? 0 : 1u << 1;
	for (unsigned i = 0; i < from->redundancy_count; i++)
		if (!model_allow_redundancy(from->redundancy[i], to))
			return check_refuse(source,
				check_path_of(path, "tenants[%zu].redundancy[%u]", index, i),
				"expected none, mirror:2 to mirror:4, ec:K+M or ec, found '%.40s'",
				from->redundancy[i]);
	to->on_loss_allowed = from->on_loss_count ? 0 : 1u << MSG_ON_LOSS_SIGBUS;
	for (unsigned i = 0; i < from->on_loss_count; i++)
		if (!model_allow_on_loss(from->on_loss[i], to))
			return check_refuse(source,
				check_path_of(path, "tenants[%zu].on_loss[%u]", index, i),
				"expected sigbus, failover, refill, signal or kill, found '%.40s'",
				from->on_loss[i]);
	return SECPOOL_OK;
}

/* Where the tenant's rules are, for explanations. */
static void note_lines(const struct lines *lines, size_t index, struct model_tenant *to)
{
	char path[96];

	check_path_of(path, "tenants[%zu]", index);
	to->lines[POLICY_RULE_TENANT] = lines_of(lines, path);
	for (unsigned rule = POLICY_RULE_USERS; rule < POLICY_RULES; rule++)
		if (rule != POLICY_RULE_QUOTA)
			to->lines[rule] = lines_of_key(lines, path, policy_rule_name(rule));
	to->lines[POLICY_RULE_QUOTA] =
		lines_of(lines, check_path_of(path, "tenants[%zu].quota.bytes", index));
}

static enum secpool_error build_tenant(const struct check_source *source, size_t index,
	const struct schema_tenant *from, struct policy *policy)
{
	struct model_tenant *to = &policy->tenants[index];
	char path[96], tenant[MODEL_NAME_BYTES];
	enum secpool_error error;

	error = check_name(
		source, check_path_of(path, "tenants[%zu].name", index), from->name, tenant);
	if (!error && model_tenant(policy, tenant))
		error = check_refuse(source, path, "there are two tenants '%s'", tenant);
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
	return error;
}

static int hex_digit(char c)
{
	static const char digits[] = "0123456789abcdef";
	const char *at = c ? strchr(digits, tolower((unsigned char)c)) : NULL;

	return at ? (int)(at - digits) : -1;
}

/* Exactly so many bytes. */
static bool take_hex(const char *text, size_t count, uint8_t *bytes)
{
	if (strlen(text) != 2 * count)
		return false;
	for (size_t i = 0; i < 2 * count; i++) {
		int digit = hex_digit(text[i]);

		if (digit < 0)
			return false;
		bytes[i / 2] = (uint8_t)(bytes[i / 2] << 4 | digit);
	}
	return true;
}

static enum secpool_error build_reference(const struct check_source *source, size_t index,
	const struct schema_reference *from, struct policy *policy)
{
	struct model_reference *to = &policy->references[index];
	enum secpool_error error;
	uint64_t pcr = 0;
	char path[96];

	error = check_name(source, check_path_of(path, "devices.reference[%zu].name", index),
		from->name, to->name);
	if (!error)
		error = check_number(source,
			check_path_of(path, "devices.reference[%zu].pcr", index), from->pcr,
			PCRS - 1, &pcr);
	if (error)
		return error;
	if (!(policy->settings.device_pcrs & 1u << pcr))
		return check_refuse(source, path,
			"PCR %u is not quoted: expected it in devices.pcrs", (unsigned)pcr);
	to->pcr = (unsigned)pcr;
	if (!take_hex(from->sha256, MODEL_PCR_BYTES, to->value))
		return check_refuse(source,
			check_path_of(path, "devices.reference[%zu].sha256", index),
			"expected %d hex digits", 2 * MODEL_PCR_BYTES);
	policy->reference_count = index + 1;
	return SECPOOL_OK;
}

static enum secpool_error build_known(const struct check_source *source, size_t index,
	const struct schema_known *from, struct policy *policy)
{
	struct model_known *to = &policy->known[index];
	enum secpool_error error;
	char path[96];

	error = check_name(
		source, check_path_of(path, "devices.known[%zu].id", index), from->id, to->id);
	if (error)
		return error;
	check_path_of(path, "devices.known[%zu].ek", index);
	if (!take_hex(from->ek, MODEL_EK_BYTES, to->ek))
		return check_refuse(
			source, path, "expected a TPM name of %d hex digits", 2 * MODEL_EK_BYTES);
	/* TPM_ALG_SHA256, TPM 2.0 part 2, section 6.3 */
	if (to->ek[0] != 0x00 || to->ek[1] != 0x0b)
		return check_refuse(
			source, path, "expected a TPM name that begins with 000b (SHA-256)");
	for (size_t i = 0; i < index; i++) {
		if (strcmp(policy->known[i].id, to->id) == 0)
			return check_refuse(source, path, "there are two devices '%s'", to->id);
		if (memcmp(policy->known[i].ek, to->ek, MODEL_EK_BYTES) == 0)
			return check_refuse(source, path, "devices '%s' and '%s' have the same EK",
				policy->known[i].id, to->id);
	}
	policy->known_count = index + 1;
	return SECPOOL_OK;
}

/* Absolute: it is read by processes of which nobody says where they run. */
static enum secpool_error build_ek_ca(
	const struct check_source *source, const struct schema_devices *from, struct policy *policy)
{
	char path[96];

	policy->ek_ca = calloc(from->ek_ca_count + 1u, sizeof *policy->ek_ca);
	if (!policy->ek_ca)
		return err_set(SECPOOL_E_NO_MEMORY, "%s: no memory for its devices", source->name);
	for (unsigned i = 0; i < from->ek_ca_count; i++) {
		if (from->ek_ca[i][0] != '/')
			return check_refuse(source, check_path_of(path, "devices.ek_ca[%u]", i),
				"expected a file's path from / on, found '%.40s'", from->ek_ca[i]);
		policy->ek_ca[i] = strdup(from->ek_ca[i]);
		if (!policy->ek_ca[i])
			return err_set(
				SECPOOL_E_NO_MEMORY, "%s: no memory for its devices", source->name);
		policy->ek_ca_count = i + 1;
	}
	return SECPOOL_OK;
}

/* Wide apart: what is measured of devices that are alike must not part them. */
static const struct model_tier tiers_default[] = {{"near", 1000}, {"far", 10000}};

static enum secpool_error build_tier(const struct check_source *source, size_t index,
	const struct schema_tier *from, struct policy *policy)
{
	struct model_tier *to = &policy->tiers[index];
	uint64_t least = index > 0 ? policy->tiers[index - 1].latency_ns : 0;
	enum secpool_error error;
	char path[96];

	error = check_name(source, check_path_of(path, "devices.tiers[%zu].name", index),
		from->name, to->name);
	if (!error && strcmp(to->name, MODEL_REST_TIER) == 0)
		error = check_refuse(
			source, path, "'%s' is the tier of all other devices", to->name);
	for (size_t i = 0; i < index && !error; i++)
		if (strcmp(policy->tiers[i].name, to->name) == 0)
			error = check_refuse(source, path, "there are two tiers '%s'", to->name);
	check_path_of(path, "devices.tiers[%zu].latency_ns", index);
	if (!error)
		error = check_number(
			source, path, from->latency_ns, LATENCY_NS_MOST, &to->latency_ns);
	if (!error && to->latency_ns <= least)
		error = check_refuse(source, path, "expected more than %llu, fastest tier first",
			(unsigned long long)least);
	policy->tier_count = index + !error;
	return error;
}

static enum secpool_error build_tiers(
	const struct check_source *source, const struct schema_devices *from, struct policy *policy)
{
	enum secpool_error error = SECPOOL_OK;

	if (!from || from->tiers_count == 0) {
		memcpy(policy->tiers, tiers_default, sizeof tiers_default);
		policy->tier_count = sizeof tiers_default / sizeof *tiers_default;
		return SECPOOL_OK;
	}
	for (unsigned i = 0; i < from->tiers_count && !error; i++)
		error = build_tier(source, i, &from->tiers[i], policy);
	return error;
}

/* Without the section no device may be used. */
static enum secpool_error build_devices(
	const struct check_source *source, const struct schema_devices *from, struct policy *policy)
{
	enum secpool_error error = SECPOOL_OK;
	char path[96];

	if (!from)
		return SECPOOL_OK;
	policy->first_use = from->enrol != SCHEMA_LISTED;
	policy->settings.enrol_by_operator = from->enrol == SCHEMA_OPERATOR;
	policy->firmware = calloc(from->firmware_count + 1u, sizeof *policy->firmware);
	policy->known = calloc(from->known_count + 1u, sizeof *policy->known);
	policy->references = calloc(from->reference_count + 1u, sizeof *policy->references);
	if (!policy->firmware || !policy->known || !policy->references)
		return err_set(SECPOOL_E_NO_MEMORY, "%s: no memory for its devices", source->name);
	for (unsigned i = 0; i < from->firmware_count && !error; i++) {
		error = check_name(source, check_path_of(path, "devices.firmware[%u]", i),
			from->firmware[i], policy->firmware[i]);
		policy->firmware_count = i + !error;
	}
	for (unsigned i = 0; i < from->known_count && !error; i++)
		error = build_known(source, i, &from->known[i], policy);
	for (unsigned i = 0; i < from->reference_count && !error; i++)
		error = build_reference(source, i, &from->reference[i], policy);
	if (!error)
		error = build_ek_ca(source, from, policy);
	return error;
}

enum secpool_error build_policy(const struct schema_file *file, const struct lines *lines,
	const char *name, struct policy *policy)
{
	struct check_source source = {.lines = lines, .name = name};
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
		error = build_tiers(&source, file->devices, policy);
	if (!error)
		error = build_devices(&source, file->devices, policy);
	return error;
}
