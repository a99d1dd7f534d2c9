/* SPDX-License-Identifier: Apache-2.0 */
/* What a policy says of devices. */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/clock.h"
#include "policy/value.h"

enum {
	AGE_SECONDS_DEFAULT = 3600,
	REVOKE_SECONDS_DEFAULT = 600,
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
	/* the kernel reads no more of a list (Documentation/ABI/testing/sysfs-bus-cxl, trigger_poison_list) */
	SUSPECT_POISON_MOST = 1000,
	LATENCY_NS_MOST = 1000000000,
};

/* What a device's TPM quotes. */
static enum secpool_error build_device_pcrs(const struct value_source *source,
	const struct schema_devices *from, struct policy_settings *to)
{
	enum secpool_error error = SECPOOL_OK;

	to->device_pcrs = DEVICE_PCRS_NEEDED;
	if (from)
		error = value_pcrs(
			source, "devices.pcrs", from->pcrs, from->pcrs_count, &to->device_pcrs);
	if (!error && (to->device_pcrs & DEVICE_PCRS_NEEDED) != DEVICE_PCRS_NEEDED)
		error = value_refuse(source, "devices.pcrs",
			"expected 0 and 2 among them: they tell firmware and identity");
	if (!error && to->device_pcrs >> DEVICE_PCRS_END)
		error = value_refuse(source, "devices.pcrs",
			"expected PCRs below %d: those above are a host's own", DEVICE_PCRS_END);
	return error;
}

/* How late a device's answer may be. */
static enum secpool_error build_bounds(const struct value_source *source,
	const struct schema_devices *from, struct policy_settings *to)
{
	uint64_t suspect = SUSPECT_MS_DEFAULT, gone = GONE_MS_DEFAULT;
	enum secpool_error error = SECPOOL_OK;

	if (from)
		error = value_number(source, "devices.suspect_after_ms", from->suspect_after_ms,
			ANSWER_MS_MOST, &suspect);
	if (!error && from)
		error = value_number(source, "devices.gone_after_ms", from->gone_after_ms,
			ANSWER_MS_MOST, &gone);
	if (!error && suspect == 0)
		error = value_refuse(source, "devices.suspect_after_ms", "expected 1 or more");
	if (!error && gone <= suspect)
		error = value_refuse(source,
			from->gone_after_ms ? "devices.gone_after_ms" : "devices.suspect_after_ms",
			"expected gone_after_ms (%llu) above suspect_after_ms (%llu)",
			(unsigned long long)gone, (unsigned long long)suspect);
	to->suspect_after_ms = (uint32_t)suspect;
	to->gone_after_ms = (uint32_t)gone;
	return error;
}

/* Which of the things that a device may say of its health make it suspect. */
static enum secpool_error build_health(const struct value_source *source,
	const struct schema_devices *from, struct policy_settings *to)
{
	static const struct {
		const char *word;
		uint32_t flags;
	} words[] = {{"maintenance", POLICY_HEALTH_MAINTENANCE},
		{"degraded", POLICY_HEALTH_DEGRADED}, {"replace", POLICY_HEALTH_REPLACE},
		{"media", POLICY_HEALTH_MEDIA}, {"none", 0}};
	enum { WORDS = sizeof words / sizeof *words };
	unsigned count = from ? from->suspect_health_count : 0;

	to->suspect_health =
		count == 0 ? (uint32_t)(POLICY_HEALTH_REPLACE | POLICY_HEALTH_MEDIA) : 0;
	for (unsigned i = 0; i < count; i++) {
		char path[VALUE_PATH_BYTES];
		size_t word = 0;

		value_path(path, "devices.suspect_health[%u]", i);
		while (word < WORDS && strcmp(words[word].word, from->suspect_health[i]) != 0)
			word++;
		if (word == WORDS)
			return value_refuse(source, path,
				"expected maintenance, degraded, replace, media, or none alone, "
				"found '%.40s'",
				from->suspect_health[i]);
		if (words[word].flags == 0 && count > 1)
			return value_refuse(source, path, "expected none to be alone");
		to->suspect_health |= words[word].flags;
	}
	return SECPOOL_OK;
}

/* What makes a device suspect. */
static enum secpool_error build_thresholds(const struct value_source *source,
	const struct schema_devices *from, struct policy_settings *to)
{
	uint64_t tenants = SUSPECT_TENANTS_DEFAULT, faults = 0, poison = 1;
	enum secpool_error error = SECPOOL_OK;

	if (from)
		error = value_number(source, "devices.suspect_tenants", from->suspect_tenants,
			SUSPECT_TENANTS_MOST, &tenants);
	if (!error && from)
		error = value_number(source, "devices.suspect_faults", from->suspect_faults,
			SUSPECT_FAULTS_MOST, &faults);
	if (!error && from)
		error = value_number(source, "devices.suspect_poison", from->suspect_poison,
			SUSPECT_POISON_MOST, &poison);
	if (!error && tenants == 0)
		error = value_refuse(source, "devices.suspect_tenants", "expected 1 or more");
	if (!error)
		error = build_health(source, from, to);
	to->suspect_tenants = (uint32_t)tenants;
	to->suspect_faults = (uint32_t)faults;
	to->suspect_poison = (uint32_t)poison;
	return error;
}

/* What becomes of data on devices that may not be used any more. */
static enum secpool_error build_revocation(const struct value_source *source,
	const struct schema_devices *from, struct policy_settings *to)
{
	static const enum policy_drains drains[] = {[SCHEMA_READABLE] = POLICY_DRAINS_READABLE,
		[SCHEMA_REDUNDANT] = POLICY_DRAINS_REDUNDANT,
		[SCHEMA_NONE] = POLICY_DRAINS_NONE};
	uint64_t seconds = REVOKE_SECONDS_DEFAULT;
	enum secpool_error error = SECPOOL_OK;

	if (from)
		error = value_number(source, "devices.revoke_seconds", from->revoke_seconds,
			VALUE_SECONDS_MOST, &seconds);
	to->revoke_drains = drains[from ? from->revoke_drains : SCHEMA_READABLE];
	to->revoke_ns = seconds * CLOCK_NS_PER_S;
	return error;
}

enum secpool_error devices_build_settings(const struct value_source *source,
	const struct schema_devices *from, struct policy_settings *to)
{
	uint64_t age = AGE_SECONDS_DEFAULT;
	enum secpool_error error = SECPOOL_OK;

	if (from)
		error = value_number(source, "devices.max_age_seconds", from->max_age_seconds,
			VALUE_SECONDS_MOST, &age);
	if (!error && age == 0)
		error = value_refuse(source, "devices.max_age_seconds",
			"expected 1 or more: evidence of age 0 is never fresh");
	if (!error)
		error = build_bounds(source, from, to);
	if (!error)
		error = build_thresholds(source, from, to);
	if (!error)
		error = build_revocation(source, from, to);
	if (!error)
		error = build_device_pcrs(source, from, to);
	to->max_age_ns = age * CLOCK_NS_PER_S;
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

static enum secpool_error build_reference(const struct value_source *source, size_t index,
	const struct schema_reference *from, struct policy *policy)
{
	struct model_reference *to = &policy->references[index];
	enum secpool_error error;
	uint64_t pcr = 0;
	char path[VALUE_PATH_BYTES];

	error = value_name(source, value_path(path, "devices.reference[%zu].name", index),
		from->name, to->name);
	if (!error)
		error = value_number(source, value_path(path, "devices.reference[%zu].pcr", index),
			from->pcr, VALUE_PCRS - 1, &pcr);
	if (error)
		return error;
	if (!(policy->settings.device_pcrs & 1u << pcr))
		return value_refuse(source, path,
			"PCR %u is not quoted: expected it in devices.pcrs", (unsigned)pcr);
	to->pcr = (unsigned)pcr;
	if (!take_hex(from->sha256, MODEL_PCR_BYTES, to->value))
		return value_refuse(source,
			value_path(path, "devices.reference[%zu].sha256", index),
			"expected %d hex digits", 2 * MODEL_PCR_BYTES);
	policy->reference_count = index + 1;
	return SECPOOL_OK;
}

static enum secpool_error build_ek(const struct value_source *source, const char *path,
	const char *text, uint8_t ek[MODEL_EK_BYTES])
{
	if (!take_hex(text, MODEL_EK_BYTES, ek))
		return value_refuse(
			source, path, "expected a TPM name of %d hex digits", 2 * MODEL_EK_BYTES);
	/* TPM_ALG_SHA256, TPM 2.0 part 2, section 6.3 */
	if (ek[0] != 0x00 || ek[1] != 0x0b)
		return value_refuse(
			source, path, "expected a TPM name that begins with 000b (SHA-256)");
	return SECPOOL_OK;
}

static enum secpool_error build_known(const struct value_source *source, size_t index,
	const struct schema_known *from, struct policy *policy)
{
	struct model_known *to = &policy->known[index];
	enum secpool_error error;
	char path[VALUE_PATH_BYTES];

	error = value_name(
		source, value_path(path, "devices.known[%zu].id", index), from->id, to->id);
	if (error)
		return error;
	error = build_ek(
		source, value_path(path, "devices.known[%zu].ek", index), from->ek, to->ek);
	if (error)
		return error;
	for (size_t i = 0; i < index; i++) {
		if (strcmp(policy->known[i].id, to->id) == 0)
			return value_refuse(source, path, "there are two devices '%s'", to->id);
		if (memcmp(policy->known[i].ek, to->ek, MODEL_EK_BYTES) == 0)
			return value_refuse(source, path, "devices '%s' and '%s' have the same EK",
				policy->known[i].id, to->id);
	}
	policy->known_count = index + 1;
	return SECPOOL_OK;
}

/* An id, or the EK of a device whatever its id is. */
static enum secpool_error build_revoked(
	const struct value_source *source, size_t index, const char *text, struct policy *policy)
{
	struct model_revoked *to = &policy->revoked[index];
	char path[VALUE_PATH_BYTES];

	policy->revoked_count = index + 1;
	value_path(path, "devices.revoked[%zu]", index);
	/* no name is that long: it is meant to be one of a TPM */
	if (strlen(text) >= MODEL_NAME_BYTES)
		return build_ek(source, path, text, to->ek);
	return value_name(source, path, text, to->id);
}

/* Absolute: it is read by processes of which nobody says where they run. */
static enum secpool_error build_ek_ca(
	const struct value_source *source, const struct schema_devices *from, struct policy *policy)
{
	char path[VALUE_PATH_BYTES];

	policy->ek_ca = calloc(from->ek_ca_count + 1u, sizeof *policy->ek_ca);
	if (!policy->ek_ca)
		return err_set(SECPOOL_E_NO_MEMORY, "%s: no memory for its devices", source->name);
	for (unsigned i = 0; i < from->ek_ca_count; i++) {
		if (from->ek_ca[i][0] != '/')
			return value_refuse(source, value_path(path, "devices.ek_ca[%u]", i),
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

static enum secpool_error build_tier(const struct value_source *source, size_t index,
	const struct schema_tier *from, struct policy *policy)
{
	struct model_tier *to = &policy->tiers[index];
	uint64_t least = index > 0 ? policy->tiers[index - 1].latency_ns : 0;
	enum secpool_error error;
	char path[VALUE_PATH_BYTES];

	error = value_name(
		source, value_path(path, "devices.tiers[%zu].name", index), from->name, to->name);
	if (!error && strcmp(to->name, MODEL_REST_TIER) == 0)
		error = value_refuse(
			source, path, "'%s' is the tier of all other devices", to->name);
	for (size_t i = 0; i < index && !error; i++)
		if (strcmp(policy->tiers[i].name, to->name) == 0)
			error = value_refuse(source, path, "there are two tiers '%s'", to->name);
	value_path(path, "devices.tiers[%zu].latency_ns", index);
	if (!error)
		error = value_number(
			source, path, from->latency_ns, LATENCY_NS_MOST, &to->latency_ns);
	if (!error && to->latency_ns <= least)
		error = value_refuse(source, path, "expected more than %llu, fastest tier first",
			(unsigned long long)least);
	policy->tier_count = index + !error;
	return error;
}

static enum secpool_error build_tiers(
	const struct value_source *source, const struct schema_devices *from, struct policy *policy)
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

enum secpool_error devices_build(
	const struct value_source *source, const struct schema_devices *from, struct policy *policy)
{
	enum secpool_error error = SECPOOL_OK;
	char path[VALUE_PATH_BYTES];

	error = build_tiers(source, from, policy);
	if (error || !from)
		return error;
	policy->first_use = from->enrol != SCHEMA_LISTED;
	policy->settings.enrol_by_operator = from->enrol == SCHEMA_OPERATOR;
	policy->firmware = calloc(from->firmware_count + 1u, sizeof *policy->firmware);
	policy->known = calloc(from->known_count + 1u, sizeof *policy->known);
	policy->references = calloc(from->reference_count + 1u, sizeof *policy->references);
	policy->revoked = calloc(from->revoked_count + 1u, sizeof *policy->revoked);
	if (!policy->firmware || !policy->revoked || !policy->known || !policy->references)
		return err_set(SECPOOL_E_NO_MEMORY, "%s: no memory for its devices", source->name);
	for (unsigned i = 0; i < from->firmware_count && !error; i++) {
		error = value_name(source, value_path(path, "devices.firmware[%u]", i),
			from->firmware[i], policy->firmware[i]);
		policy->firmware_count = i + !error;
	}
	for (unsigned i = 0; i < from->known_count && !error; i++)
		error = build_known(source, i, &from->known[i], policy);
	for (unsigned i = 0; i < from->revoked_count && !error; i++)
		error = build_revoked(source, i, from->revoked[i], policy);
	for (unsigned i = 0; i < from->reference_count && !error; i++)
		error = build_reference(source, i, &from->reference[i], policy);
	if (!error)
		error = build_ek_ca(source, from, policy);
	return error;
}
