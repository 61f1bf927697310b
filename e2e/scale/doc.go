// Package scale loads one broker's coordinators: many groups, many members, many commits, one large group. It prints figures;
// what it asserts is that every member gets in and every partition an owner. EVERLOG_E2E_SIZE=full is a thousand groups of
// ten members (`make scale`); without it the same runs small. It holds no code beside its tests.
package scale
