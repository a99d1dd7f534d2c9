/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The policy file: who may be which tenant, with what, on which devices. Read with libcyaml; everything that is not allowed is refused.
 *
 * Errors of a file name the file, the line and what was expected. Decisions are pure functions of the loaded policy, so that the enclave, the
 * front and `secpool policy` give the same answer. docs/man/secpool-policy.5.scd describes the format.
 * Threads: a loaded policy is immutable; any thread may ask.
 */
#ifndef SECPOOL_POLICY_POLICY_H
#define SECPOOL_POLICY_POLICY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/base/err.h"

struct policy;

/* The most a policy file may have, in bytes. */
enum { POLICY_FILE_BYTES_MOST = 1 << 20 };

/* What a tenant may have; 0 means none, not unlimited. */
struct policy_quota {
	uint64_t bytes;       /* of all regions, without redundancy, in whole 2 MiB; also of those being released, and what is set aside */
	uint64_t regions;
	uint64_t sessions;
	uint64_t local_bytes; /* plaintext in local memory, for each session */
};

/*
 * What is written under one key before it is renewed: never more than 2^43 blocks of 16 bytes (docs/page-format.md, "Limits"), and never less than 64 MiB, since each program's threads
 * take 4 MiB of a key at a time.
 */
#define POLICY_ROTATE_BYTES_MOST  (128ull << 40)
#define POLICY_ROTATE_BYTES_LEAST (64ull << 20)

/* Which data programs may move off a device that may not be used any more; each allows what the one before does. */
enum policy_drains {
	POLICY_DRAINS_NONE = 0,
	POLICY_DRAINS_REDUNDANT = 1, /* what could be made again from other devices */
	POLICY_DRAINS_READABLE = 2,  /* also what is only there */
};

/* What a CXL device may say of its health, flags: CXL 3.0 section 8.2.9.8.3.1, as enum msg_health. */
enum policy_health { POLICY_HEALTH_MAINTENANCE = 1, POLICY_HEALTH_DEGRADED = 2, POLICY_HEALTH_REPLACE = 4, POLICY_HEALTH_MEDIA = 8 };

/* Settings that are not about one tenant. */
struct policy_settings {
	uint64_t window_base, window_bytes; /* where regions are mapped: 64 TiB at 0x110000000000 unless set */
	uint64_t grace_ns;                  /* how long a live client may be without keymgrd before its regions are given up */
	uint64_t session_ns;                /* a session's life: after it no new keys; 0: without end */
	uint64_t rebuild_bytes_per_second;  /* how fast a program rebuilds a region; 0: as fast as it goes */
	uint64_t rebalance_bytes_per_second; /* how fast one region at a time moves from fuller devices to emptier ones; 0: none does */
	uint32_t rebalance_percent;         /* by so much of their sizes two devices must be apart for that; 1 to 100 */
	uint64_t patrol_bytes_per_second;   /* how fast a program reads and checks what lies on devices, for each region; 0: not at all */
	uint64_t rotate_after_ns;           /* a region's key that is older is renewed; 0: none is for its age */
	uint64_t anchor_after_ns;           /* so long after a key was destroyed that is durable; 0: by command alone */
	uint64_t anchor_skipped_most;       /* over so many numbers of generations that were never committed the TPM counts; at least 1 */
	uint64_t rotate_after_bytes;        /* so much written under a key, and it is renewed: at most POLICY_ROTATE_BYTES_MOST */
	uint64_t max_age_ns;                /* how old a device's evidence may be for placement */
	uint32_t suspect_after_ms;          /* an answer of a device that is later: other copies are read first */
	uint32_t gone_after_ms;             /* one that is later still: the device is given up; above suspect_after_ms */
	uint32_t suspect_tenants;           /* so many that met bad bytes on a device make it suspect; 1 to 4 */
	uint32_t suspect_faults;            /* so many accesses that failed while its media were there do; 0: no number */
	uint32_t suspect_poison;            /* so many places on a device's own list of poisoned memory do; 0: no number */
	uint32_t suspect_health;            /* each of these does, when a device says so of itself: flags of enum policy_health */
	uint32_t host_pcrs;                 /* PCRs that the root key is sealed to */
	uint32_t device_pcrs;               /* PCRs that a device quotes: 0 and 2, which tell who it is, and more */
	enum policy_drains revoke_drains;
	uint64_t revoke_ns;                 /* how long after a device was refused or revoked what is left on it is given up */
	bool recovery_key;                  /* a new store gets a recovery key; recovery: none */
	bool enrol_by_operator;             /* enrol: operator: no EK is taken for an id until an operator says so */
	bool demand_openssl;                /* cipher: openssl */
	bool allow_unlocked_memory;         /* allow: unlocked_memory */
	bool allow_device_dma;              /* allow: device_dma */
	bool allow_memfd_without_secret;    /* allow: memfd_without_secret */
};

/*
 * Reads a policy from an open file (from its start) or from memory; resolves user and group names, so call it before any sandbox. name is for the messages.
 * Errors: SECPOOL_E_POLICY with "NAME:LINE: what was expected"; SECPOOL_E_LIMIT.
 */
enum secpool_error policy_load_fd(int fd, const char *name, struct policy **ret_policy) MUST_USE;
enum secpool_error policy_load_text(const char *text, size_t bytes, const char *name, struct policy **ret_policy) MUST_USE;
void policy_free(struct policy *policy);

const struct policy_settings *policy_settings(const struct policy *policy);

/* Tenants in the file's order; NULL beyond the last. Borrowed. */
const char *policy_tenant_name(const struct policy *policy, size_t index);
/* "root, alice, @staff" as written, for listings. Borrowed. */
const char *policy_tenant_users(const struct policy *policy, size_t index);
/* What the tenant may have; NULL beyond the last. Borrowed. */
const struct policy_quota *policy_tenant_quota(const struct policy *policy, size_t index);

/*
 * Files of CA certificates (PEM), in the file's order; NULL beyond the last. Where there are any, a device that the policy does not list under its id needs an EK certificate by one of them. Borrowed.
 */
const char *policy_ek_ca(const struct policy *policy, size_t index);

/*
 * Whether a process of this user (uid, and its primary gid) may be the tenant.
 * Errors: SECPOOL_E_UNKNOWN_TENANT, SECPOOL_E_DENIED, each naming tenant and user.
 */
enum secpool_error policy_may_be_tenant(const struct policy *policy, const char *tenant, uint32_t uid, uint32_t gid, struct policy_quota *ret_quota) MUST_USE;

/*
 * data, lanes and on_loss are as in msg_region_create. Errors: SECPOOL_E_UNKNOWN_TENANT, SECPOOL_E_DENIED, SECPOOL_E_QUOTA (more bytes than the tenant may ever have),
 * SECPOOL_E_UNSUPPORTED.
 */
enum secpool_error policy_may_create(const struct policy *policy, const char *tenant, uint64_t bytes, uint32_t data, uint32_t lanes, uint32_t on_loss) MUST_USE;

/*
 * Whether a tenant may read what `owner` has sealed, where the owner grants it: itself, or one of its share_with.
 * Errors: SECPOOL_E_UNKNOWN_TENANT (either), SECPOOL_E_DENIED, naming them.
 */
enum secpool_error policy_may_share(const struct policy *policy, const char *owner, const char *with) MUST_USE;

/*
 * Whether a device that proved this EK (TPM name, 34 bytes) and this firmware may be used under this id. An id that is not listed may come with any EK where the policy has
 * enrol: first-use (the caller remembers the first one it saw for an id) or enrol: operator (the caller remembers those that an operator took in).
 * Errors: SECPOOL_E_ATTESTATION naming what differs.
 */
enum secpool_error policy_may_use_device(const struct policy *policy, const char *id, const uint8_t ek_name[34], const char *firmware, bool *ret_first_use) MUST_USE;

/* Whether devices.revoked names the id, or the EK (TPM name, 34 bytes; NULL: not known). Such a device is refused whatever else the policy has (policy_may_use_device). */
bool policy_is_revoked(const struct policy *policy, const char *id, const uint8_t ek_name[34]);

/*
 * Whether a PCR of a device's TPM may have this value (SHA-256, 32 bytes): one of devices.reference for this PCR; any, where there is none (the log must replay to it in any case).
 * Errors: SECPOOL_E_ATTESTATION with what it is and what is listed.
 */
enum secpool_error policy_may_measure(const struct policy *policy, const char *id, unsigned pcr, const uint8_t value[32]) MUST_USE;

/*
 * The tier of a device by its latency: 0 is placed on first. The tiers are the policy's, or else near (up to 1 us) and far (up to 10 us); a device that is slower, or whose latency is
 * not known (0), is in the last one, "rest".
 */
uint32_t policy_tier(const struct policy *policy, uint64_t latency_ns);
/* Borrowed. */
const char *policy_tier_label(const struct policy *policy, uint32_t tier);

/* What can be asked for an explanation. */
enum policy_action {
	POLICY_ACTION_SESSION = 0, /* to be the tenant */
	POLICY_ACTION_CREATE = 1,  /* to be it, and to have a region of this kind */
};

/* What in a policy decides. */
enum policy_rule {
	POLICY_RULE_NONE = 0,       /* nothing in the file: no policy could allow it */
	POLICY_RULE_TENANTS = 1,    /* the list of tenants */
	POLICY_RULE_TENANT = 2,     /* a tenant as a whole: none of its users and groups is the user */
	POLICY_RULE_USERS = 3,
	POLICY_RULE_GROUPS = 4,
	POLICY_RULE_QUOTA = 5,      /* quota.bytes */
	POLICY_RULE_REDUNDANCY = 6,
	POLICY_RULE_ON_LOSS = 7,
	POLICY_RULES = 8,
};

/* data, lanes and on_loss are as in msg_region_create; they and bytes count for POLICY_ACTION_CREATE only. */
struct policy_question {
	const char *tenant;
	uint32_t uid, gid;
	enum policy_action action;
	uint64_t bytes;
	uint32_t data, lanes, on_loss;
};

struct policy_answer {
	enum secpool_error decision; /* SECPOOL_OK, or what the daemons would answer; err_detail then says why */
	enum policy_rule rule;       /* what refused; of an allowed question what let the user be the tenant */
	unsigned line;               /* where the rule is in the file, from 1; 0: nowhere */
};

/*
 * Decides by policy_may_be_tenant and policy_may_create, as the daemons do, and says by which rule. What depends on what is in use (sessions, regions, bytes
 * that others of the tenant have) is not looked at.
 */
struct policy_answer policy_explain(const struct policy *policy, const struct policy_question *question);

/* "users", "quota.bytes": the key as the file has it; "" for POLICY_RULE_NONE. */
const char *policy_rule_name(enum policy_rule rule);

/* The policy that `secpool up` uses when none is given: policy/default.yaml. Borrowed, not NUL-terminated. */
const char *policy_default(size_t *ret_bytes);

#endif
