/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The policy file as written: its keys and their types, read by libcyaml. What the values mean and whether they
 * are right is policy/build.c's and policy/devices.c's. Sizes and lists are still text here. Threads: any; no state.
 */
#ifndef SECPOOL_POLICY_SCHEMA_H
#define SECPOOL_POLICY_SCHEMA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/base/err.h"
#include "policy/lines.h"

/* The most entries of each list in a file. */
enum { SCHEMA_TENANTS_MOST = 4096, SCHEMA_NAMES_MOST = 1024, SCHEMA_DEVICES_MOST = 4096, SCHEMA_FILES_MOST = 64, SCHEMA_TIERS_MOST = 16 };

enum schema_cipher { SCHEMA_AUTO = 0, SCHEMA_OPENSSL = 1 };
enum schema_recovery { SCHEMA_KEY = 0, SCHEMA_NO_KEY = 1 };
enum schema_drains { SCHEMA_READABLE = 0, SCHEMA_REDUNDANT = 1, SCHEMA_NONE = 2 };
enum schema_enrol { SCHEMA_LISTED = 0, SCHEMA_FIRST_USE = 1, SCHEMA_OPERATOR = 2 };

/* Pointers are NULL and numbers 0 where the file has nothing. */
struct schema_window {
	char *base, *bytes;
};

struct schema_allow {
	int unlocked_memory, memfd_without_secret, device_dma;
};

struct schema_quota {
	char *bytes, *regions, *sessions, *local_bytes;
};

struct schema_tenant {
	char *name;
	char **users, **groups, **protection, **redundancy, **on_loss, **share_with;
	unsigned users_count, groups_count, protection_count, redundancy_count, on_loss_count, share_with_count;
	struct schema_quota quota;
};

struct schema_known {
	char *id, *ek;
};

struct schema_reference {
	char *name, *pcr, *sha256;
};

struct schema_tier {
	char *name, *latency_ns;
};

struct schema_devices {
	int enrol; /* enum schema_enrol */
	int revoke_drains; /* enum schema_drains */
	char *max_age_seconds, *suspect_after_ms, *gone_after_ms;
	char *suspect_tenants, *suspect_faults, *suspect_poison, *revoke_seconds;
	char **suspect_health, **revoked, **firmware, **pcrs, **ek_ca;
	struct schema_known *known;
	struct schema_reference *reference;
	struct schema_tier *tiers;
	unsigned suspect_health_count, revoked_count, firmware_count, known_count, pcrs_count, reference_count, ek_ca_count, tiers_count;
};

struct schema_file {
	char *version, *grace_seconds, *session_seconds, *rebuild_bytes_per_second, *rebalance_bytes_per_second, *rebalance_percent, *patrol_bytes_per_second;
	char *rotate_after_seconds, *rotate_after_bytes, *anchor_after_seconds, *anchor_skipped_most;
	char **host_pcrs;
	int cipher; /* enum schema_cipher */
	int recovery; /* enum schema_recovery */
	struct schema_window window;
	struct schema_allow allow;
	struct schema_tenant *tenants;
	struct schema_devices *devices;
	unsigned host_pcrs_count, tenants_count;
};

/* Errors: SECPOOL_E_POLICY with "NAME:LINE: what was expected"; SECPOOL_E_NO_MEMORY. */
enum secpool_error schema_load(const char *text, size_t bytes, const char *name,
	const struct lines *lines, struct schema_file **ret_file) MUST_USE;
void schema_free(struct schema_file *file);

#endif
