package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/everlog/everlog/cluster/controller"
	"github.com/everlog/everlog/cluster/quota"
)

// DescribeClientQuotas (key 48, v0-1) and AlterClientQuotas (49, v0-1; KIP-546). throttle.go enforces them.

func (s *Server) describeClientQuotas(_ context.Context, _ *call, req *kmsg.DescribeClientQuotasRequest) (kmsg.Response, error) {
	resp := req.ResponseKind().(*kmsg.DescribeClientQuotasResponse)
	filter := make([]quota.Component, len(req.Components))
	for i, c := range req.Components {
		filter[i] = quota.Component{Type: c.EntityType, Match: int8(c.MatchType), Name: c.Match}
	}
	table, _ := quota.Parse(s.broker.Image().Values(quota.Kind)) // what cannot be read does not hold, and is not shown
	entries, err := table.Select(filter, req.Strict)
	if err != nil {
		resp.ErrorCode, resp.ErrorMessage = codeOf(err), messageOf(err)
		return resp, nil
	}
	resp.Entries = []kmsg.DescribeClientQuotasResponseEntry{} // Java's admin client takes null for an error
	for _, e := range entries {
		re := kmsg.NewDescribeClientQuotasResponseEntry()
		for _, p := range e.Entity.Parts() {
			part := kmsg.NewDescribeClientQuotasResponseEntryEntity()
			part.Type, part.Name = p.Type, p.Name
			re.Entity = append(re.Entity, part)
		}
		for _, l := range e.Sorted() {
			v := kmsg.NewDescribeClientQuotasResponseEntryValue()
			v.Key, v.Value = l.Key, l.Value
			re.Values = append(re.Values, v)
		}
		resp.Entries = append(resp.Entries, re)
	}
	return resp, nil
}

func (s *Server) alterClientQuotas(ctx context.Context, _ *call, req *kmsg.AlterClientQuotasRequest) (kmsg.Response, error) {
	ctx, cancel := adminContext(ctx, 0)
	defer cancel()
	changes := make([]controller.QuotaChange, len(req.Entries))
	for i, e := range req.Entries {
		for _, p := range e.Entity {
			changes[i].Entity = append(changes[i].Entity, quota.Part{Type: p.Type, Name: p.Name})
		}
		for _, op := range e.Ops {
			changes[i].Ops = append(changes[i].Ops, quota.Op{Key: op.Key, Value: op.Value, Remove: op.Remove})
		}
	}
	errs := s.broker.Controller.AlterQuotas(ctx, changes, req.ValidateOnly)
	if !req.ValidateOnly {
		s.settleEach(ctx, errs)
	}
	resp := req.ResponseKind().(*kmsg.AlterClientQuotasResponse)
	for i, e := range req.Entries {
		re := kmsg.NewAlterClientQuotasResponseEntry()
		re.ErrorCode, re.ErrorMessage = codeOf(errs[i]), messageOf(errs[i])
		for _, p := range e.Entity {
			part := kmsg.NewAlterClientQuotasResponseEntryEntity()
			part.Type, part.Name = p.Type, p.Name
			re.Entity = append(re.Entity, part)
		}
		resp.Entries = append(resp.Entries, re)
	}
	return resp, nil
}
