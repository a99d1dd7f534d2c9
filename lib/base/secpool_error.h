/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every error that secpool knows, in one list: the public codes, their texts, and the numbers that travel
 * between the processes. Installed beside secpool.h, which includes it.
 *
 * A number is never used again for another meaning. Add new codes at the end.
 */
#ifndef SECPOOL_ERROR_H
#define SECPOOL_ERROR_H

/* X(name, number, text) */
#define SECPOOL_ERRORS(X)                                                                          \
	X(SECPOOL_OK, 0, "done")                                                                   \
	X(SECPOOL_E_INTERNAL, 1, "internal error, please report it")                               \
	X(SECPOOL_E_INVALID, 2, "an argument is not valid")                                        \
	X(SECPOOL_E_NO_MEMORY, 3, "out of memory")                                                 \
	X(SECPOOL_E_NO_LOCKED_MEMORY, 4, "memory could not be locked (raise RLIMIT_MEMLOCK)")      \
	X(SECPOOL_E_NO_SECRET_MEMORY, 5, "the kernel has no memfd_secret (secretmem.enable=1)")    \
	X(SECPOOL_E_NO_FAULTFD, 6, "userfaultfd is not available")                                 \
	X(SECPOOL_E_NO_SPACE, 7, "the pool has no space for this")                                 \
	X(SECPOOL_E_UNSUPPORTED, 8, "this option is not available")                                \
	X(SECPOOL_E_SYSTEM, 9, "a system call failed")                                             \
	X(SECPOOL_E_NOT_FOUND, 10, "not found")                                                    \
	X(SECPOOL_E_EXISTS, 11, "exists already")                                                  \
	X(SECPOOL_E_BUSY, 12, "busy")                                                              \
	X(SECPOOL_E_TIMEOUT, 13, "no answer in time")                                              \
	X(SECPOOL_E_DENIED, 14, "refused by policy")                                               \
	X(SECPOOL_E_QUOTA, 15, "the tenant's quota is used up")                                    \
	X(SECPOOL_E_UNKNOWN_TENANT, 16, "the policy knows no such tenant")                         \
	X(SECPOOL_E_SESSION_EXPIRED, 17, "the session has expired, open a new one")                \
	X(SECPOOL_E_KEY_GONE, 18, "the key was destroyed")                                         \
	X(SECPOOL_E_INTEGRITY, 19, "data failed its integrity check")                              \
	X(SECPOOL_E_LOST, 20, "the data was lost with its device")                                 \
	X(SECPOOL_E_DEVICE_GONE, 21, "the device is gone")                                         \
	X(SECPOOL_E_NOT_ATTESTED, 22, "the device has no fresh attestation")                       \
	X(SECPOOL_E_ATTESTATION, 23, "the device failed attestation")                              \
	X(SECPOOL_E_DAEMON_GONE, 24, "the daemon can't be reached")                                \
	X(SECPOOL_E_PROTOCOL, 25, "a message broke the protocol")                                  \
	X(SECPOOL_E_TPM, 26, "the TPM refused or can't be reached")                                \
	X(SECPOOL_E_SELFTEST, 27, "a known-answer self-test failed")                               \
	X(SECPOOL_E_CRYPTO, 28, "a cryptographic operation failed")                                \
	X(SECPOOL_E_POLICY, 29, "the policy file is not valid")                                    \
	X(SECPOOL_E_STORE, 30, "the key manager's store failed")                                   \
	X(SECPOOL_E_LIMIT, 31, "a limit was reached")                                              \
	X(SECPOOL_E_CLOSED, 32, "closed already")                                                  \
	X(SECPOOL_E_NO_EVENT, 33, "no event is waiting")

enum secpool_error {
#define SECPOOL_ERROR_ENUM(name, number, text) name = number,
	SECPOOL_ERRORS(SECPOOL_ERROR_ENUM)
#undef SECPOOL_ERROR_ENUM
};

#endif
