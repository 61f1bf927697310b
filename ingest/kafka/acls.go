package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// DescribeAcls (key 29, v1-3), CreateAcls (30, v1-3), DeleteAcls (31, v1-3; KIP-140, KIP-290): there is no authorizer, which is told
// as Kafka tells it, so that consoles do not offer what is not there.

var noAuthorizer = "No Authorizer is configured."

func (s *Server) describeACLs(_ context.Context, _ *call, req *kmsg.DescribeACLsRequest) (kmsg.Response, error) {
	resp := req.ResponseKind().(*kmsg.DescribeACLsResponse)
	resp.ErrorCode, resp.ErrorMessage = kerr.SecurityDisabled.Code, &noAuthorizer
	return resp, nil
}

func (s *Server) createACLs(_ context.Context, _ *call, req *kmsg.CreateACLsRequest) (kmsg.Response, error) {
	resp := req.ResponseKind().(*kmsg.CreateACLsResponse)
	for range req.Creations {
		resp.Results = append(resp.Results, kmsg.CreateACLsResponseResult{ErrorCode: kerr.SecurityDisabled.Code, ErrorMessage: &noAuthorizer})
	}
	return resp, nil
}

func (s *Server) deleteACLs(_ context.Context, _ *call, req *kmsg.DeleteACLsRequest) (kmsg.Response, error) {
	resp := req.ResponseKind().(*kmsg.DeleteACLsResponse)
	for range req.Filters {
		resp.Results = append(resp.Results, kmsg.DeleteACLsResponseResult{ErrorCode: kerr.SecurityDisabled.Code, ErrorMessage: &noAuthorizer})
	}
	return resp, nil
}
